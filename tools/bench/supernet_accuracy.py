"""What the subnets of a supernet are worth: with the supernet's weights, and trained alone for as long.

The supernet of a recipe is trained; of the largest, the smallest and some random subnets, top-1 on the test images is
measured with the supernet's own batch norm statistics, with recalibrated ones, and, as the yardstick, after training
the same static network from scratch with the recipe's optimizer and epochs.

    python tools/bench/supernet_accuracy.py [nas/digits/ofa_supernet.py] [--random 6] [--seeds 1] [--epochs N]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import io
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from razordeploy.compress.algorithm.plain import as_plain
from razordeploy.compress.nas.recalibrate import recalibrate
from razordeploy.compress.nas.train import build_supernet, train_supernet
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.data.sources import build_source
from razordeploy.subnet.fix import export_fix_subnet
from razordeploy.train.runner import train_float

Row = tuple[str, float, float, float, float]


def trained(recipe: Recipe) -> Any:
    """The recipe's algorithm with the weights that its training leaves."""
    algorithm = build_supernet(recipe)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        state = torch.load(train_supernet(recipe, work_dir=folder), weights_only=True)
    algorithm.architecture.load_state_dict(state.get("state_dict", state))
    return algorithm


def static(algorithm: Any, choices: dict[str, Any]) -> Any:
    """The plain network of a subnet, with the weights the supernet has."""
    algorithm.mutator.set_choices(choices)
    return as_plain(export_fix_subnet(algorithm.architecture, "mutable", slice_weight=True)[1]).eval()


def alone(network: Any, recipe: Recipe) -> Any:
    """``network`` after training from its weights as the recipe trains the supernet."""
    assert recipe.train is not None and recipe.data is not None
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        train_float(
            network, build_source(recipe.data, "train"), work_dir=Path(folder), seed=recipe.seed, **recipe.train
        )
    return network.eval()


@torch.no_grad()
def top1(network: Any, batches: Any) -> float:
    """Percent of samples whose class has the highest logit."""
    hits = torch.cat([network(images).argmax(1) == targets for images, targets in batches])
    return 100.0 * float(hits.float().mean())


def rows(recipe: Recipe, count: int) -> list[Row]:
    """Name, parameters in thousands, and top-1: as it is, recalibrated, trained alone."""
    assert recipe.data is not None
    calibration, test = (DataLoader(build_source(recipe.data, split), batch_size=256) for split in ("train", "test"))
    algorithm, untrained = trained(recipe), build_supernet(recipe)
    torch.manual_seed(recipe.seed)
    wanted = {"largest": algorithm.mutator.max_choices, "smallest": algorithm.mutator.min_choices}
    wanted |= {f"random {number + 1}": algorithm.mutator.sample_choices() for number in range(count)}
    found = []
    for name, choices in wanted.items():
        network = static(algorithm, choices)
        size = sum(p.numel() for p in network.parameters()) / 1e3
        before = top1(network, test)
        recalibrate(network, (images for images, _ in calibration))
        fresh = alone(copy.deepcopy(static(untrained, choices)), recipe)
        found.append((name, size, before, top1(network, test), top1(fresh, test)))
    return found


def main() -> None:
    """Print a table for each seed, and the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="nas/digits/ofa_supernet.py")
    parser.add_argument("--random", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, {"train.epochs": str(options.epochs)} if options.epochs else {})
    every: dict[str, list[tuple[float, ...]]] = {}
    print(f"{'subnet':10} {'seed':>4} {'k params':>8} {'as it is':>8} {'recal.':>7} {'alone':>7}")
    for seed in range(options.seeds):
        for name, size, *values in rows(dataclasses.replace(recipe, seed=seed), options.random):
            print(f"{name:10} {seed:4} {size:8.1f} " + " ".join(f"{v:7.2f}" for v in values), flush=True)
            every.setdefault(name.split()[0], []).append(tuple(values))
    for name, found in every.items():
        means = [statistics.mean(column) for column in zip(*found, strict=True)]
        print(f"{name:10} mean of {len(found):3}  " + " ".join(f"{v:7.2f}" for v in means))


if __name__ == "__main__":
    main()
