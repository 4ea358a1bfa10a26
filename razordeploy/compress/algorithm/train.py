"""Training an algorithm by a recipe, whatever it does."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import DataLoader

from razordeploy.compress.algorithm.base import BaseAlgorithm
from razordeploy.compress.algorithm.build import build
from razordeploy.compress.algorithm.build_model import recipe_folder
from razordeploy.compress.algorithm.hooks import ScheduleHook
from razordeploy.compress.algorithm.optim import SeparateOptimWrapperConstructor
from razordeploy.config.recipe import Recipe
from razordeploy.data.sources import build_source
from razordeploy.errors import RecipeError, nearest
from razordeploy.train.classifier import ShiftAndFlip
from razordeploy.train.config_runner import named, train_config
from razordeploy.train.runner import train_source

OPTIM_WRAPPER_CONSTRUCTORS: dict[str, type] = {"SeparateOptimWrapperConstructor": SeparateOptimWrapperConstructor}
_AUGMENTATION = ("shift", "flip")
# Of train_source, but not for recipes.
_NOT_IN_RECIPES = ("wrapped", "model", "source", "hooks", "optim_wrapper", "model_wrapper")


def build_algorithm(recipe: Recipe, table: Mapping[str, type[BaseAlgorithm]]) -> BaseAlgorithm:
    """The recipe's algorithm; weights that are not loaded are drawn by ``recipe.seed``.

    Args:
        recipe: its ``model`` names the algorithm.
        table: name -> class.

    Raises:
        RecipeError: something in ``model`` is unknown or does not fit.
        CheckpointError: weights are missing, cannot be read or do not match.
        ModelError: a model cannot be built, or cannot be compressed that way.
    """
    config = copy.deepcopy(recipe.model)
    if config.get("data_preprocessor") is None and recipe.config.get("data_preprocessor") is not None:
        config["data_preprocessor"] = copy.deepcopy(recipe.config["data_preprocessor"])
    with recipe_folder(recipe.path.parent), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        algorithm: BaseAlgorithm = build(config, table, "model")
    return algorithm


def train_algorithm(
    algorithm: BaseAlgorithm,
    model: nn.Module,
    recipe: Recipe,
    *,
    names: Mapping[str, type],
    hooks: Sequence[Hook] = (),
    work_dir: str | Path,
    checkpoint: str,
    resume: bool = False,
    amp: bool = False,
    launcher: str = "none",
) -> Path:
    """Train ``algorithm`` as ``recipe`` says and write the weights of ``model``, which is inside it.

    With the sections ``data`` and ``train`` the training is that of ``train_float``; an ``optim_wrapper`` takes the
    place of its optimizer. With ``train_dataloader``, ``train_cfg`` and ``optim_wrapper`` it is OpenMMLab's.

    Args:
        algorithm: as ``build_algorithm`` made it of ``recipe``.
        model: whose ``state_dict`` is written.
        recipe: what to do.
        names: hooks, loops and data sets that the recipe may name besides mmengine's.
        hooks: more hooks of the run.
        work_dir: made if missing.
        checkpoint: name of the file in it.
        resume: continue from the last checkpoint in ``work_dir``, if there is one.
        amp: mixed precision.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        RecipeError, CheckpointError, ModelError: as for ``train_source`` and ``train_config``.
    """
    run: dict[str, Any] = {"work_dir": work_dir, "checkpoint": checkpoint, "seed": recipe.seed, "resume": resume}
    run |= {"amp": amp, "launcher": launcher, "model_wrapper": _wrapper(algorithm, recipe)}
    names = {**OPTIM_WRAPPER_CONSTRUCTORS, **names}
    hooks = [ScheduleHook(), *hooks]
    if recipe.data is not None and recipe.train is not None:
        return _train_source(algorithm, model, recipe, names, hooks, run)
    scope = str(recipe.config.get("default_scope") or "mmcls")
    return train_config(algorithm, model, _with_data(recipe), scope=scope, names=names, hooks=hooks, **run)


def _wrapper(algorithm: BaseAlgorithm, recipe: Recipe) -> dict[str, Any] | None:
    """What holds the algorithm on several processes; None leaves it to mmengine."""
    given = recipe.config.get("model_wrapper_cfg")
    if given is None and type(algorithm).train_step is not BaseModel.train_step:
        return {"type": "razordeploy.AlgorithmDDP"}
    return None if given is None else copy.deepcopy(given)


def _train_source(
    algorithm: BaseAlgorithm,
    model: nn.Module,
    recipe: Recipe,
    names: Mapping[str, type],
    hooks: Sequence[Hook],
    run: dict[str, Any],
) -> Path:
    assert recipe.data is not None and recipe.train is not None
    options = dict(recipe.train)
    augment = {key: options.pop(key) for key in _AUGMENTATION if key in options}
    known = [*inspect.signature(train_source).parameters, *_AUGMENTATION]
    for key in options:
        if key not in known or key in (*_NOT_IN_RECIPES, *run):
            raise RecipeError(f"{recipe.path}: unknown key '{key}' in 'train'", hint=nearest(key, known))
    if recipe.model.get("data_preprocessor") is None:
        algorithm.data_preprocessor = ShiftAndFlip(**augment)
    with recipe_folder(recipe.path.parent):
        own = [_hook(config, names) for config in recipe.config.get("custom_hooks") or []]
    if recipe.config.get("optim_wrapper"):
        run["optim_wrapper"] = named(recipe.config["optim_wrapper"], names)
    source = build_source(recipe.data, "train", recipe.path.parent)
    return train_source(algorithm, model, source, hooks=[*hooks, *own], **run, **options)


def _hook(config: Mapping[str, Any], names: Mapping[str, type]) -> Hook | dict[str, Any]:
    found = {name: kind for name, kind in names.items() if issubclass(kind, Hook)}
    bare = str(config.get("type")).rpartition(".")[2]
    return build(config, found, "hook") if bare in found else dict(config)


def _with_data(recipe: Recipe) -> dict[str, Any]:
    """The recipe's config; a ``data`` section takes the place of its ``train_dataloader``."""
    if recipe.data is None:
        return recipe.config
    size = int((recipe.config.get("train_dataloader") or {}).get("batch_size", 64))
    source = build_source(recipe.data, "train", recipe.path.parent)
    loader = DataLoader(source, batch_size=size, shuffle=True, drop_last=len(source) >= size)
    return {**recipe.config, "train_dataloader": loader}
