"""Training the plain model of a subnet, by a recipe that names the supernet and what is kept of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from razordeploy.compress.algorithm.base import BaseAlgorithm
from razordeploy.compress.algorithm.build import build
from razordeploy.compress.algorithm.build_model import beside, build_architecture, recipe_folder
from razordeploy.compress.algorithm.plain import as_classifier, as_plain
from razordeploy.compress.algorithm.train import train_algorithm
from razordeploy.compress.algorithm.weights import initialise
from razordeploy.compress.pruning.algorithms.group_fisher import SUB_MODELS
from razordeploy.config.recipe import Recipe
from razordeploy.subnet.fix import load_fix_subnet

CHECKPOINT = "subnet.pth"


def sub_model(
    cfg: Any,
    fix_subnet: str | Mapping[str, Any],
    mode: str | None = None,
    prefix: str = "",
    extra_prefix: str = "",
    init_weight_from_supernet: bool = False,
    init_cfg: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The plain model of ``fix_subnet``; mmrazor's ``sub_model`` with any architecture that a recipe may name.

    Args:
        cfg: the supernet; see ``build_architecture``.
        fix_subnet: as of ``load_fix_subnet``, and so are ``mode``, ``prefix`` and ``extra_prefix``.
        mode: see there.
        prefix: see there.
        extra_prefix: see there.
        init_weight_from_supernet: ``init_cfg``, or that of ``cfg``, is of the supernet, which is sliced afterwards.
        init_cfg: mmengine's initialisation config, of the subnet unless the line above says otherwise.

    Raises:
        ModelError, CheckpointError: as for ``load_fix_subnet`` and ``initialise``.
    """
    model = build_architecture(cfg, "cfg")
    if init_weight_from_supernet:
        initialise(model, init_cfg)
    kind = type(model)
    as_plain(model)
    load_fix_subnet(
        model, beside(fix_subnet) if isinstance(fix_subnet, str) else fix_subnet, mode, prefix, extra_prefix
    )
    if hasattr(kind, "plain_class"):
        as_classifier(model)
    if not init_weight_from_supernet:
        initialise(model, init_cfg)
    return model


ALGORITHMS: dict[str, Callable[..., nn.Module]] = {**SUB_MODELS, "sub_model": sub_model}


def build_sub_model(recipe: Recipe) -> nn.Module:
    """The plain model of the recipe; weights that are not loaded are drawn by ``recipe.seed``."""
    with recipe_folder(recipe.path.parent), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model: nn.Module = build(copy.deepcopy(recipe.model), ALGORITHMS, "model")
    return model


def train_sub_model(
    recipe: Recipe,
    *,
    work_dir: str | Path,
    checkpoint: str | None = None,
    resume: bool = False,
    amp: bool = False,
    launcher: str = "none",
) -> Path:
    """Train the recipe's subnet and write its weights; arguments as of every trainer."""
    model = build_sub_model(recipe)
    algorithm = BaseAlgorithm(model, recipe.config.get("data_preprocessor"))
    path = train_algorithm(
        algorithm,
        algorithm.architecture,
        recipe,
        names={},
        work_dir=work_dir,
        checkpoint=checkpoint or CHECKPOINT,
        resume=resume,
        amp=amp,
        launcher=launcher,
    )
    as_plain(algorithm.architecture)
    return path
