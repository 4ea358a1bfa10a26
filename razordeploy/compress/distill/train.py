"""Distillation by a recipe."""

from __future__ import annotations

from pathlib import Path

from mmengine.hooks import Hook

from razordeploy.compress.algorithm.base import BaseAlgorithm
from razordeploy.compress.algorithm.plain import as_plain
from razordeploy.compress.algorithm.train import build_algorithm as build_from
from razordeploy.compress.algorithm.train import train_algorithm
from razordeploy.compress.distill.algorithms.table import ALGORITHMS
from razordeploy.compress.distill.crd_dataset import CRDDataset
from razordeploy.compress.distill.hooks import (
    CheckFirstBatch,
    ConnectorPretrainHook,
    RazorVisualizationHook,
    StopDistillHook,
)
from razordeploy.compress.distill.loops import SelfDistillValLoop, SingleTeacherDistillValLoop
from razordeploy.compress.distill.student import with_narrow_student
from razordeploy.config.recipe import Recipe

CHECKPOINT = "student.pth"
HOOKS: dict[str, type[Hook]] = {
    "ConnectorPretrainHook": ConnectorPretrainHook,
    "RazorVisualizationHook": RazorVisualizationHook,
    "StopDistillHook": StopDistillHook,
}
LOOPS: dict[str, type] = {
    "SelfDistillValLoop": SelfDistillValLoop,
    "SingleTeacherDistillValLoop": SingleTeacherDistillValLoop,
}
DATASETS: dict[str, type] = {"CRDDataset": CRDDataset}


def build_algorithm(recipe: Recipe) -> BaseAlgorithm:
    """The recipe's algorithm, with its teacher's weights loaded; the student's are drawn by ``recipe.seed``.

    A section ``prune`` or ``subnet`` narrows the student first.

    Raises:
        RecipeError, CheckpointError, ModelError: as for any algorithm.
    """
    return build_from(with_narrow_student(recipe), ALGORITHMS)


def train_distillation(
    recipe: Recipe,
    *,
    work_dir: str | Path,
    checkpoint: str | None = None,
    resume: bool = False,
    amp: bool = False,
    launcher: str = "none",
) -> Path:
    """Distil as ``recipe`` says and write the student's plain weights.

    Before training starts, the losses of one batch are computed on a copy of the model, so that what does not fit is
    refused first.

    Args:
        recipe: its ``model`` is one of ``ALGORITHMS``.
        work_dir: made if missing.
        checkpoint: name of the student's weights in it; None: ``student.pth``.
        resume: continue from the last checkpoint in ``work_dir``, if there is one.
        amp: mixed precision.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        RecipeError, CheckpointError, ModelError: as for ``build_algorithm`` and ``train_algorithm``.
    """
    algorithm = build_algorithm(recipe)
    student = algorithm.student
    path = train_algorithm(
        algorithm,
        student,
        recipe,
        names={**HOOKS, **LOOPS, **DATASETS},
        hooks=[CheckFirstBatch()],
        work_dir=work_dir,
        checkpoint=checkpoint or CHECKPOINT,
        resume=resume,
        amp=amp,
        launcher=launcher,
    )
    as_plain(student)
    return path
