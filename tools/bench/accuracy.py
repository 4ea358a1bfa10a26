"""Accuracy of the CIFAR-10 recipes on every engine: 512 calibration images from train, all 10,000 test images.

RAZORDEPLOY_DATA=... python tools/bench/accuracy.py [--models resnet20,resnet56] [--backend openvino,onnxruntime]
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
            subprocess.run(command, check=True, capture_output=True)
            report = json.loads((Path(folder) / "report.json").read_text())
        for name, entry in report["backends"].items():
            scores = [f"{entry['metrics'][side]['top1']:.2f}" for side in ("float", "simulated", "engine")]
            gap, coverage = entry["gap"], entry["coverage"]
            gaps = (f"{gap['float_to_engine']:+.2f}", f"{gap['simulated_to_engine']:+.2f}")
            print(line(model, name, *scores, *gaps, f"{coverage['int8']}/{coverage['planned']}"), flush=True)


if __name__ == "__main__":
    main()
