"""Accuracy of the CIFAR-10 recipes on every engine: 512 calibration images from train, all 10,000 test images.

RAZORDEPLOY_DATA=... python tools/bench/accuracy.py [--models resnet20,resnet56] [--backend openvino,onnxruntime]

Where no engine can be built (``--backend tensorrt`` without a GPU) its columns are empty.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTHS = (10, 13, 8, 11, 8, 15, 15, 9)


def line(*cells: object) -> str:
    """One row of the table."""
    return "".join(str(cell).rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))


def number(value: float | None, form: str) -> str:
    """``value`` in that form; ``-`` where it was not measured."""
    return "-" if value is None else format(value, form)


def main() -> None:
    """Print one row per model and backend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet20,resnet56")
    parser.add_argument("--backend", default="openvino,onnxruntime")
    options = parser.parse_args()
    print(line("model", "backend", "float", "simulated", "engine", "float-engine", "sim-engine", "int8"))
    for model in options.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            command = ["razordeploy.cli.main", "ptq", f"ptq/cifar10_{model}.py", "--backend", options.backend]
            command = [sys.executable, "-m", *command, "--work-dir", folder, "--benchmark-seconds", "0"]
            done = subprocess.run(command, capture_output=True, text=True)
            # 3: a runtime is missing; what could be measured without it is in the report.
            if done.returncode not in (0, 1, 3):
                raise SystemExit(done.stderr)
            report = json.loads((Path(folder) / "report.json").read_text())
        for name, entry in report["backends"].items():
            measured, gap, coverage = entry["metrics"], entry.get("gap") or {}, entry.get("coverage") or {}
            sides = ("float", "simulated", "engine")
            scores = [number((measured.get(side) or {}).get("top1"), ".2f") for side in sides]
            gaps = (number(gap.get(key), "+.2f") for key in ("float_to_engine", "simulated_to_engine"))
            int8 = f"{number(coverage.get('int8'), 'd')}/{number(coverage.get('planned'), 'd')}"
            print(line(model, name, *scores, *gaps, int8), flush=True)


if __name__ == "__main__":
    main()
