"""The algorithms that a recipe may name as its model, and who trains them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from razordeploy.config.recipe import Recipe
from razordeploy.errors import RecipeError, nearest

DISTILL = "razordeploy.compress.distill.train:train_distillation"
NAS = "razordeploy.compress.nas.train:train_supernet"
PRUNING = "razordeploy.compress.pruning.train:train_pruning"
SUB_MODEL = "razordeploy.compress.pruning.finetune:train_sub_model"

# Nothing is imported before a recipe asks for it.
TRAINERS: dict[str, str] = {
    "ABTeacherStudentDistillation": DISTILL,
    "AutoSlim": PRUNING,
    "Autoformer": NAS,
    "BigNAS": NAS,
    "DSNAS": NAS,
    "Darts": NAS,
    "DAFLDataFreeDistillation": DISTILL,
    "DCFF": PRUNING,
    "DMCP": PRUNING,
    "DataFreeDistillation": DISTILL,
    "FpnTeacherDistill": DISTILL,
    "GroupFisherAlgorithm": PRUNING,
    "GroupFisherDeploySubModel": SUB_MODEL,
    "GroupFisherSubModel": SUB_MODEL,
    "ItePruneAlgorithm": PRUNING,
    "MultiTeacherDistill": DISTILL,
    "OverhaulFeatureDistillation": DISTILL,
    "RatioPruner": PRUNING,
    "SPOS": NAS,
    "SelfDistill": DISTILL,
    "SingleTeacherDistill": DISTILL,
    "SlimmableNetwork": PRUNING,
    "TeacherStudentDistillation": DISTILL,
    "sub_model": SUB_MODEL,
}
"""Name -> ``module:function(recipe, work_dir=, checkpoint=, resume=, amp=, launcher=)``, which trains and returns the
path of the weights; ``checkpoint`` None takes the function's own name for the file."""

BUILDERS: dict[str, str] = {
    DISTILL: "razordeploy.compress.distill.train:build_algorithm",
    NAS: "razordeploy.compress.nas.train:build_supernet",
    PRUNING: "razordeploy.compress.pruning.train:build_algorithm",
    SUB_MODEL: "razordeploy.compress.pruning.finetune:build_sub_model",
}
"""What trains an algorithm -> ``module:function(recipe)``, which builds it without training."""


def algorithm_name(recipe: Recipe) -> str:
    """The name of the recipe's model, without a scope."""
    return str(recipe.model["type"]).rpartition(".")[2]


def is_algorithm(recipe: Recipe) -> bool:
    """Whether the recipe's model is an algorithm."""
    return "type" in recipe.model and algorithm_name(recipe) in TRAINERS


def is_supernet(recipe: Recipe) -> bool:
    """Whether the recipe's model is an algorithm that trains a supernet."""
    return is_algorithm(recipe) and TRAINERS[algorithm_name(recipe)] == NAS


def trainer_of(recipe: Recipe) -> Callable[..., Path]:
    """Find what trains the recipe's algorithm.

    Raises:
        RecipeError: there is no such algorithm.
    """
    name = algorithm_name(recipe)
    if name not in TRAINERS:
        raise RecipeError(f"{recipe.path}: unknown algorithm '{recipe.model['type']}'", hint=nearest(name, TRAINERS))
    return _found(TRAINERS[name])


def built_algorithm(recipe: Recipe) -> Any:
    """Build the recipe's algorithm without training it.

    Raises:
        RecipeError: there is no such algorithm, or something in it does not fit.
    """
    trainer_of(recipe)
    return _found(BUILDERS[TRAINERS[algorithm_name(recipe)]])(recipe)


def _found(reference: str) -> Callable[..., Any]:
    module, _, function = reference.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
