"""Pruning by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process

from razordeploy.compress.algorithm.plain import as_plain
from razordeploy.compress.algorithm.train import build_algorithm as build_from
from razordeploy.compress.algorithm.train import train_algorithm
from razordeploy.compress.pruning.algorithms.base import PruningAlgorithm
from razordeploy.compress.pruning.algorithms.slimmable import SlimmableNetwork
from razordeploy.compress.pruning.algorithms.table import ALGORITHMS
from razordeploy.compress.pruning.hooks import HOOKS
from razordeploy.compress.pruning.loops import LOOPS
from razordeploy.compress.pruning.result import sliced, write_result
from razordeploy.config.recipe import Recipe
from razordeploy.subnet.files import write_mapping
from razordeploy.train.runner import save_state_dict

CHECKPOINT = "pruned.pth"
SUPERNET = "supernet.pth"


def build_algorithm(recipe: Recipe) -> PruningAlgorithm:
    """The recipe's algorithm, with its units found.

    Raises:
        RecipeError, CheckpointError, ModelError: as for any algorithm.
    """
    algorithm: Any = build_from(recipe, ALGORITHMS)
    return algorithm


def train_pruning(
    recipe: Recipe,
    *,
    work_dir: str | Path,
    checkpoint: str | None = None,
    resume: bool = False,
    amp: bool = False,
    launcher: str = "none",
) -> Path:
    """Prune as ``recipe`` says and write weights and structure.

    Where training decides on a structure, ``checkpoint`` has the weights of the unpruned architecture,
    ``fix_subnet.yaml`` the structure and ``fix_subnet_weight.pth`` the weights of the sliced model. A slimmable network
    writes ``subnet_<i>.yaml`` and ``subnet_<i>.pth``, sliced, for each subnet.

    Args:
        recipe: its ``model`` is one of ``ALGORITHMS``.
        work_dir: made if missing.
        checkpoint: name of the weights in it; None: ``pruned.pth``, or ``supernet.pth`` where nothing is decided.
        resume: continue from the last checkpoint in ``work_dir``, if there is one.
        amp: mixed precision.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        RecipeError, CheckpointError, ModelError: as for ``build_algorithm`` and ``train_algorithm``.
    """
    algorithm = build_algorithm(recipe)
    path = train_algorithm(
        algorithm,
        algorithm.architecture,
        recipe,
        names={**HOOKS, **LOOPS},
        work_dir=work_dir,
        checkpoint=checkpoint or (CHECKPOINT if algorithm.decides else SUPERNET),
        resume=resume,
        amp=amp,
        launcher=launcher,
    )
    algorithm.eval()
    algorithm.settle()
    if is_main_process():
        if algorithm.decides:
            write_result(algorithm, path)
        elif isinstance(algorithm, SlimmableNetwork):
            write_subnets(algorithm, path.parent)
    as_plain(algorithm.architecture)
    return path


def write_subnets(algorithm: SlimmableNetwork, folder: Path) -> None:
    """Write structure and sliced weights of every subnet that was trained."""
    for index in sorted(algorithm.trained):
        algorithm.mutator.switch(index)
        subnet, static = sliced(algorithm)
        write_mapping(folder / f"subnet_{index}.yaml", subnet)
        save_state_dict(static, folder / f"subnet_{index}.pth")
    algorithm.settle()
