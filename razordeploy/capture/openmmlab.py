"""Classifiers of mmcls and mmpretrain as plain modules: one tensor in, logits out."""

from __future__ import annotations

import copy
import importlib
import re
import warnings
from typing import Any

import torch
from torch import nn

from razordeploy import lazy
from razordeploy.config.recipe import Recipe
from razordeploy.errors import MissingDependency, ModelError, nearest

_EXTRAS = {"mmcls": "mmcls", "mmpretrain": "openmmlab"}
_OURS = ("mmrazor", "razordeploy", "gml")
_IMAGE_SIDES = {"CIFAR10": 32, "CIFAR100": 32, "ImageNet": 224, "ImageNet21k": 224}


def build_classifier(recipe: Recipe) -> nn.Module:
    """Build the classifier that ``recipe.model`` names, with its ``data_preprocessor``.

    Raises:
        MissingDependency: mmcls or mmpretrain is not installed, or not usable as it is.
        ModelError: the name is not registered, or building it fails.
    """
    scope, name = _scope(recipe)
    _import(scope)
    from mmengine.registry import MODELS, init_default_scope

    # Makes our own models known to mmengine.
    importlib.import_module("razordeploy.registry")
    if scope != _OURS[1]:
        init_default_scope(scope)
    config = copy.deepcopy(recipe.model)
    config.pop("_scope_", None)
    if config.get("data_preprocessor") is None and recipe.config.get("data_preprocessor") is not None:
        # mmengine's Runner does the same.
        config["data_preprocessor"] = copy.deepcopy(recipe.config["data_preprocessor"])
    registry = MODELS.children[scope]
    if registry.get(name) is None and MODELS.children[_OURS[1]].get(name) is not None:
        # mmrazor's recipes name its models inside the scope of mmrazor.
        registry = MODELS.children[_OURS[1]]
    if registry.get(name) is None:
        raise ModelError(
            f"model type '{name}' is not registered in {scope}",
            hint=f"{_nearest(name, registry)} Or write 'pkg.module:factory'",
        )
    try:
        # Else the default scope would be searched for one of ours.
        named = {"_scope_": _OURS[1]} if registry.scope == _OURS[1] else {}
        model = registry.build({**config, **named, "type": name})
    except (Exception, SystemExit) as error:
        raise _build_error(error, name, registry) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model type '{name}' of {scope} is no torch.nn.Module, but {type(model).__name__}")
    return model


def make_plain(model: nn.Module) -> tuple[nn.Module, nn.Module | None]:
    """Give ``model`` the call ``model(x) -> logits``, in place, and take its preprocessor out.

    The class is replaced rather than wrapped, so that module paths and checkpoint keys stay the ones that the recipe
    and mmcls know.
    """
    preprocess = model._modules.pop("data_preprocessor", None)
    original: Any = type(model)

    def forward(self: nn.Module, inputs: torch.Tensor) -> Any:
        outputs = original.forward(self, inputs, mode="tensor")
        if type(getattr(self, "head", None)).__name__ == "ConformerHead":
            # Its two branches are added up after the forward pass, in predict().
            return outputs[0] + outputs[1]
        if isinstance(outputs, dict):
            return tuple(outputs.values())
        return tuple(outputs) if isinstance(outputs, list) else outputs

    model.__class__ = type(original.__name__, (original,), {"forward": forward, "__module__": original.__module__})
    return model, preprocess


def guess_input_shape(recipe: Recipe) -> tuple[int, ...] | None:
    """The image shape (C, H, W) by the pipeline or the dataset of the recipe; None when neither tells."""
    side: int | None = None
    for key in ("test_dataloader", "val_dataloader", "train_dataloader"):
        dataset = (recipe.config.get(key) or {}).get("dataset")
        if not isinstance(dataset, dict):
            continue
        for step in dataset.get("pipeline") or ():
            size = step.get("crop_size", step.get("scale")) if isinstance(step, dict) else None
            side_here = size[0] if isinstance(size, list | tuple) and len(set(size)) == 1 else size
            side = side_here if isinstance(side_here, int) and side_here > 0 else side
        side = side or _IMAGE_SIDES.get(str(dataset.get("type")).rpartition(".")[2])
        if side:
            break
    mean = (recipe.model.get("data_preprocessor") or recipe.config.get("data_preprocessor") or {}).get("mean")
    return (len(mean) if isinstance(mean, list | tuple) else 3, side, side) if side else None


def _scope(recipe: Recipe) -> tuple[str, str]:
    prefix, _, name = str(recipe.model["type"]).rpartition(".")
    scope = prefix or recipe.model.get("_scope_") or recipe.config.get("default_scope")
    if scope is None:
        scope = next((candidate for candidate in _EXTRAS if lazy.available(candidate)), "mmcls")
    if scope in _OURS:
        return _OURS[1], name
    if scope not in _EXTRAS:
        raise ModelError(
            f"model type '{recipe.model['type']}': expected a class of {' or '.join(_EXTRAS)}, got scope '{scope}'",
            hint="for any other model write 'pkg.module:factory'",
        )
    return scope, name


def _import(scope: str) -> None:
    if scope not in _EXTRAS:
        lazy.require("mmengine", extra="mmcls")
        return
    try:
        # What they warn of on import (pkg_resources, mmcv-lite without ops) is nothing that the user can act on.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lazy.require(f"{scope}.models", extra=_EXTRAS[scope])
    except AssertionError as error:
        # Their import-time check of the mmcv version.
        pip = f"pip install 'razordeploy[{_EXTRAS[scope]}]'"
        raise MissingDependency(f"'{scope}' does not work with what is installed: {error}", hint=pip) from error


def _build_error(error: BaseException, name: str, registry: Any) -> ModelError:
    text = " ".join(str(error).split())
    unknown = re.search(r"(\w+) is not in the \S+ registry", text)
    if unknown:
        return ModelError(
            f"model '{name}': '{unknown[1]}' is not registered in {registry.scope}",
            hint=_nearest(unknown[1], registry),
        )
    return ModelError(f"model '{name}' cannot be built: {type(error).__name__}: {text}")


def _nearest(name: str, registry: Any) -> str:
    close = nearest(name, registry.module_dict)
    return close if close.startswith("did you mean") else f"{registry.scope} has {len(registry.module_dict)} others."
