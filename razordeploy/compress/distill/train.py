"""Distillation by a recipe."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import nn
from torch.utils.data import DataLoader

from razordeploy.compress.distill.algorithms.base import BaseAlgorithm
from razordeploy.compress.distill.algorithms.build_model import recipe_folder
from razordeploy.compress.distill.algorithms.plain import as_plain
from razordeploy.compress.distill.algorithms.table import ALGORITHMS
from razordeploy.compress.distill.build import build
from razordeploy.compress.distill.crd_dataset import CRDDataset
from razordeploy.compress.distill.hooks import CheckFirstBatch, ConnectorPretrainHook, StopDistillHook
from razordeploy.compress.distill.loops import SelfDistillValLoop, SingleTeacherDistillValLoop
from razordeploy.compress.distill.optim import SeparateOptimWrapperConstructor
from razordeploy.config.recipe import Recipe
from razordeploy.data.sources import build_source
from razordeploy.errors import RecipeError, nearest
from razordeploy.train.classifier import ShiftAndFlip
from razordeploy.train.config_runner import train_config
from razordeploy.train.runner import train_source

CHECKPOINT = "student.pth"
HOOKS: dict[str, type[Hook]] = {
    "ConnectorPretrainHook": ConnectorPretrainHook,
    "StopDistillHook": StopDistillHook,
}
LOOPS: dict[str, type] = {
    "SelfDistillValLoop": SelfDistillValLoop,
    "SingleTeacherDistillValLoop": SingleTeacherDistillValLoop,
}
DATASETS: dict[str, type] = {"CRDDataset": CRDDataset}
OPTIM_WRAPPER_CONSTRUCTORS: dict[str, type] = {"SeparateOptimWrapperConstructor": SeparateOptimWrapperConstructor}
_AUGMENTATION = ("shift", "flip")


def is_distillation(recipe: Recipe) -> bool:
    """Whether the recipe's model is one of ``ALGORITHMS``."""
    return str(recipe.model["type"]).rpartition(".")[2] in ALGORITHMS


def build_algorithm(recipe: Recipe) -> BaseAlgorithm:
    """The recipe's algorithm, with its teacher's weights loaded; the student's are drawn by ``recipe.seed``.

    Raises:
        RecipeError: something in ``model`` is unknown or does not fit.
        CheckpointError: the teacher's weights are missing, cannot be read or do not match.
        ModelError: a model cannot be built, or has not what is recorded.
    """
    config = copy.deepcopy(recipe.model)
    if config.get("data_preprocessor") is None and recipe.config.get("data_preprocessor") is not None:
        config["data_preprocessor"] = copy.deepcopy(recipe.config["data_preprocessor"])
    with recipe_folder(recipe.path.parent), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        algorithm: BaseAlgorithm = build(config, ALGORITHMS, "model")
    return algorithm


def train_distillation(
    recipe: Recipe,
    *,
    work_dir: str | Path,
    checkpoint: str = CHECKPOINT,
    resume: bool = False,
    amp: bool = False,
    launcher: str = "none",
) -> Path:
    """Distil as ``recipe`` says and write the student's plain weights.

    With the sections ``data`` and ``train`` the training is that of ``train_float``; with ``train_dataloader``,
    ``train_cfg`` and ``optim_wrapper`` it is OpenMMLab's. Before it starts, the losses of one batch are computed on a
    copy of the model, so that what does not fit is refused first.

    Args:
        recipe: its ``model`` is one of ``ALGORITHMS``.
        work_dir: made if missing.
        checkpoint: name of the student's weights in it.
        resume: continue from the last checkpoint in ``work_dir``, if there is one.
        amp: mixed precision.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        RecipeError, CheckpointError, ModelError: as for ``build_algorithm``, ``train_source`` and ``train_config``.
    """
    algorithm = build_algorithm(recipe)
    student = algorithm.student
    run: dict[str, Any] = {"work_dir": work_dir, "checkpoint": checkpoint, "seed": recipe.seed}
    run.update(resume=resume, amp=amp, launcher=launcher)
    if recipe.data is not None and recipe.train is not None:
        path = _train_source(algorithm, student, recipe, run)
    else:
        names = {**HOOKS, **LOOPS, **OPTIM_WRAPPER_CONSTRUCTORS, **DATASETS}
        scope = str(recipe.config.get("default_scope") or "mmcls")
        config = _with_data(recipe)
        path = train_config(algorithm, student, config, scope=scope, names=names, hooks=[CheckFirstBatch()], **run)
    as_plain(student)
    return path


def _train_source(algorithm: BaseAlgorithm, student: nn.Module, recipe: Recipe, run: dict[str, Any]) -> Path:
    assert recipe.data is not None and recipe.train is not None
    options = dict(recipe.train)
    augment = {key: options.pop(key) for key in _AUGMENTATION if key in options}
    known = [*inspect.signature(train_source).parameters, *_AUGMENTATION]
    for key in options:
        if key not in known or key in ("wrapped", "model", "source", "hooks", *run):
            raise RecipeError(f"{recipe.path}: unknown key '{key}' in 'train'", hint=nearest(key, known))
    if recipe.model.get("data_preprocessor") is None:
        algorithm.data_preprocessor = ShiftAndFlip(**augment)
    hooks = [_hook(config) for config in recipe.config.get("custom_hooks") or []]
    source = build_source(recipe.data, "train")
    return train_source(algorithm, student, source, hooks=[CheckFirstBatch(), *hooks], **run, **options)


def _hook(config: Mapping[str, Any]) -> Hook | dict[str, Any]:
    bare = str(config.get("type")).rpartition(".")[2]
    return build(config, HOOKS, "hook") if bare in HOOKS else dict(config)


def _with_data(recipe: Recipe) -> dict[str, Any]:
    """The recipe's config; a ``data`` section takes the place of its ``train_dataloader``."""
    if recipe.data is None:
        return recipe.config
    size = int((recipe.config.get("train_dataloader") or {}).get("batch_size", 64))
    loader = DataLoader(build_source(recipe.data, "train"), batch_size=size, shuffle=True, drop_last=True)
    return {**recipe.config, "train_dataloader": loader}
