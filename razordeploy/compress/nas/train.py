"""Training of supernets by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process

from razordeploy.compress.algorithm.plain import as_plain
from razordeploy.compress.algorithm.train import build_algorithm, train_algorithm
from razordeploy.compress.distill.hooks import CheckFirstBatch
from razordeploy.compress.nas.algorithms.base import SupernetAlgorithm
from razordeploy.compress.nas.algorithms.table import ALGORITHMS
from razordeploy.compress.nas.hooks import HOOKS
from razordeploy.compress.nas.loops import LOOPS
from razordeploy.config.recipe import Recipe
from razordeploy.subnet.files import write_mapping
from razordeploy.subnet.fix import export_fix_subnet

CHECKPOINT = "supernet.pth"
SUBNET = "fix_subnet.yaml"


def build_supernet(recipe: Recipe) -> SupernetAlgorithm:
    """The recipe's algorithm with its supernet, weights drawn by ``recipe.seed``.

    Raises:
        RecipeError, CheckpointError, ModelError: as for ``build_algorithm``.
    """
    algorithm: Any = build_algorithm(recipe, ALGORITHMS)
    found: SupernetAlgorithm = algorithm
    return found


def train_supernet(
    recipe: Recipe,
    *,
    work_dir: str | Path,
    checkpoint: str | None = None,
    resume: bool = False,
    amp: bool = False,
    launcher: str = "none",
) -> Path:
    """Train the supernet of ``recipe`` and write its weights; ``fix_subnet.yaml`` beside them where that is decided.

    Args:
        recipe: its ``model`` is one of ``ALGORITHMS``.
        work_dir: made if missing.
        checkpoint: name of the weights in it; None: ``supernet.pth``.
        resume: continue from the last checkpoint in ``work_dir``, if there is one.
        amp: mixed precision.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        RecipeError, CheckpointError, ModelError: as for ``build_algorithm`` and ``train_algorithm``.
    """
    algorithm = build_supernet(recipe)
    path = train_algorithm(
        algorithm,
        algorithm.architecture,
        recipe,
        names={**HOOKS, **LOOPS},
        hooks=[CheckFirstBatch()],
        work_dir=work_dir,
        checkpoint=checkpoint or CHECKPOINT,
        resume=resume,
        amp=amp,
        launcher=launcher,
    )
    if algorithm.decides_subnet and is_main_process():
        algorithm.mutator.set_choices(algorithm.decide())
        write_mapping(path.with_name(SUBNET), export_fix_subnet(algorithm.architecture, "mutable")[0])
    as_plain(algorithm.architecture)
    return path
