"""One of two processes of test_processes.py: python rank.py RANK DIRECTORY."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import torch
from torch import distributed, nn

import tests
from razordeploy.compress.algorithm.step import AlgorithmDDP

# Installed packages may have a folder of this name too, and it would come first.
tests.__path__ = [str(Path(__file__).parents[2]), *tests.__path__]
from tests.compress.pruning.processes import CASES, gradients_of_step, prepared  # noqa: E402


def train(directory: Path) -> dict[str, torch.Tensor]:
    """A whole run by a recipe, as ``razordeploy train --launcher pytorch`` starts it in each process."""
    from razordeploy.compress.pruning.train import train_pruning
    from razordeploy.config.recipe import load_recipe

    path = train_pruning(load_recipe(directory / "recipe.py"), work_dir=directory / "run", launcher="pytorch")
    distributed.barrier()
    return dict(torch.load(path, weights_only=True))


def main(rank: int, directory: Path) -> None:
    given = torch.load(directory / "given.pt", weights_only=False)
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(given["port"])
    store = distributed.FileStore(str(directory / "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found = {}
    for name in CASES:
        algorithm = prepared(name, given["channels"])
        # Ranks that have drawn differently before: their generators are not in step.
        random.seed(rank)
        torch.manual_seed(rank)
        if rank == 1:
            # The wrapper gives every process the weights of the first.
            nn.init.zeros_(algorithm.architecture.conv1.weight)
        wrapped = AlgorithmDDP(algorithm)
        found[name] = gradients_of_step(wrapped, algorithm, rank)
    found["trained"] = train(directory)
    torch.save(found, directory / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), Path(sys.argv[2]))
