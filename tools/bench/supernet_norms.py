"""How much of a narrow subnet's accuracy recalibrating its batch norms gives back, and that it hides nothing.

On scikit-learn's digits a residual network of elastic widths is trained three ways: one random subnet a step, the
sandwich rule with in-place distillation, and, as a control, the full width alone, so that no narrow subnet was ever
trained. Of each, the narrowest subnet (a quarter of the channels) and the full one are measured with the
supernet's own statistics and with recalibrated ones. Exits 1 where recalibration closes less than 90 % of a trained
subnet's gap to the full width, or where the control looks trained.

    python tools/bench/supernet_norms.py [--epochs 25] [--seeds 1] [--width 32]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from razordeploy.compress.algorithm.plain import as_plain
from razordeploy.compress.nas.algorithms.bignas import BigNAS
from razordeploy.compress.nas.algorithms.spos import SPOS
from razordeploy.compress.nas.recalibrate import recalibrate
from razordeploy.compress.nas.supernets.digits import resnet_digits
from razordeploy.data.sources import build_source
from razordeploy.subnet.fix import export_fix_subnet
from razordeploy.train.classifier import ShiftAndFlip
from razordeploy.train.runner import train_source

LOGITS = {"out": {"type": "ModuleOutputs", "source": "head.fc"}}
DISTILLER = {
    "teacher_recorders": LOGITS,
    "student_recorders": LOGITS,
    "distill_losses": {"loss_kl": {"type": "KLDivergence"}},
    "loss_forward_mappings": {
        "loss_kl": {
            "preds_S": {"recorder": "out", "from_student": True},
            "preds_T": {"recorder": "out", "from_student": False},
        }
    },
}
WAYS = ("single path", "sandwich", "control")


def train(way: str, seed: int, epochs: int, width: int) -> Any:
    """A trained supernet."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {"architecture": resnet_digits(width=width), "data_preprocessor": ShiftAndFlip(1)}
    algorithm: Any = SPOS(**options) if way == "single path" else None
    if algorithm is None:
        strategy = ("max",) if way == "control" else "sandwich4"
        algorithm = BigNAS(strategy=strategy, distiller=None if way == "control" else DISTILLER, **options)
    source = build_source({"type": "digits"}, "train")
    with tempfile.TemporaryDirectory() as folder:
        train_source(
            algorithm,
            algorithm.architecture,
            source,
            work_dir=Path(folder),
            checkpoint="supernet.pth",
            epochs=epochs,
            lr=4e-3,
            seed=seed,
            threads=1,
        )
    return algorithm


def accuracies(algorithm: Any) -> dict[str, float]:
    """Top-1 in percent of the narrowest and the full subnet, before and after recalibration."""
    calibration, test = (
        DataLoader(build_source({"type": "digits"}, split), batch_size=256) for split in ("train", "test")
    )
    found = {}
    for name, choices in (("narrow", algorithm.mutator.min_choices), ("full", algorithm.mutator.max_choices)):
        algorithm.mutator.set_choices(choices)
        static = as_plain(export_fix_subnet(algorithm.architecture, "mutable", slice_weight=True)[1]).eval()
        found[f"{name} before"] = top1(static, test)
        recalibrate(static, (images for images, _ in calibration))
        found[f"{name} after"] = top1(static, test)
    return found


@torch.no_grad()
def top1(model: torch.nn.Module, batches: Any) -> float:
    """Percent of samples whose class has the highest logit."""
    hits = torch.cat([model(images).argmax(1) == targets for images, targets in batches])
    return 100.0 * float(hits.float().mean())


def main() -> int:
    """Print a row for each way of training; 1 where a gate does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument(
        "--width", type=int, default=32, help="channels of the stem, a quarter of them at the narrowest"
    )
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    holds = True
    print(f"{'trained by':12} {'seed':>4} {'narrow':>7} {'recal.':>7} {'full':>7} {'recal.':>7}  gap closed")
    for seed in range(options.seeds):
        for way in WAYS:
            row = accuracies(train(way, seed, options.epochs, options.width))
            gap = row["full after"] - row["narrow before"]
            closed = (row["narrow after"] - row["narrow before"]) / gap if gap > 0 else 1.0
            holds &= closed < 0.9 if way == "control" else closed >= 0.9
            values = " ".join(
                f"{row[f'{part} {when}']:7.2f}" for part in ("narrow", "full") for when in ("before", "after")
            )
            print(f"{way:12} {seed:4} {values}  {closed:9.1%}", flush=True)
    print(
        "holds" if holds else "does not hold: recalibration should close 90 % of the gap, but not that of the control"
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
