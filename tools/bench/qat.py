"""Quantization-aware training of ResNet-20 on CIFAR-10, in simulation at 4 bits and on the engines at 8.

The 4-bit run is shown beside calibration alone, and beside the same training at 16 bits: fine-tuning alone fits the
network to these images, so that the gap to look at is the one to the 16-bit run. LSQ's published gap at 4 bits (Esser
et al. 2020, table 1: ResNet-18 on ImageNet, 90 epochs) is +0.6 points over its float model.

RAZORDEPLOY_DATA=... python tools/bench/qat.py [--only w4a4,engines] [--epochs N] [--samples N]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SIXTEEN = {"bit": 16, "per_channel": True}
WIDTHS = (34, 13, 8, 11, 8, 14, 12)


def line(*cells: object) -> str:
    """One row of the table."""
    return "".join(str(cell).rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))


def run(verb: str, recipe: str, *sets: str, backend: str) -> dict[str, Any]:
    """Run a recipe and return its report."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "razordeploy.cli.main", verb, recipe, "--backend", backend]
        command += ["--work-dir", folder, "--benchmark-seconds", "0"]
        done = subprocess.run([*command, *(w for s in sets for w in ("--set", s))], capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise SystemExit(done.stderr)
        report: dict[str, Any] = json.loads((Path(folder) / "report.json").read_text())
    return report


def show(name: str, report: dict[str, Any]) -> None:
    """Print the rows of a report."""
    for backend, entry in report["backends"].items():
        scores = [f"{entry['metrics'][side]['top1']:.2f}" for side in ("float", "simulated", "engine")]
        gap = entry["gap"]
        print(line(name, backend, *scores, f"{gap['float_to_engine']:+.2f}", f"{gap['simulated_to_engine']:+.2f}"))
        sys.stdout.flush()


def main() -> None:
    """Print one row per run and backend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="w4a4,engines")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--samples", type=int, default=10_000)
    options = parser.parse_args()
    length = (f"qat.epochs={options.epochs}", f"qat.freeze_bn_begin={options.epochs - 1}")
    length += (f"qat.samples={options.samples}",)
    print(line("run", "backend", "float", "simulated", "engine", "float-engine", "sim-engine"))
    if "w4a4" in options.only:
        recipe = "qat/cifar10_resnet20_w4a4.py"
        show("W4A4, calibrated", run("ptq", recipe, backend="academic"))
        show("W4A4, trained", run("qat", recipe, *length, backend="academic"))
        grids = (f"{key}.{part}={SIXTEEN}" for key in PARTS for part in ("w_qscheme", "a_qscheme"))
        wide = [s.replace(", 'per_channel': True", "") if ".a_" in s else s for s in grids]
        observers = [f"quantize.global_qconfig.{x}_observer={{'type': 'MinMaxObserver'}}" for x in "wa"]
        show("W16A16, trained alike", run("qat", recipe, *wide, *observers, *length, backend="academic"))
    if "engines" in options.only:
        show("W8A8, 1 epoch", run("qat", "qat/cifar10_resnet20.py", backend="openvino,onnxruntime"))


PARTS = ("quantize.global_qconfig", "quantize.input_layer", "quantize.output_layer")

if __name__ == "__main__":
    main()
