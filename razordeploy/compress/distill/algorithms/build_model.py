"""Students and teachers from what a recipe says of them."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.model import BaseModel
from torch import nn

from razordeploy import lazy
from razordeploy.capture.checkpoint import load_into
from razordeploy.capture.factory import resolve_factory
from razordeploy.compress.distill.algorithms.plain import as_classifier
from razordeploy.compress.distill.build import build_foreign, split_type
from razordeploy.config.mm_config import read_config
from razordeploy.errors import CheckpointError, ModelError, RecipeError


def build_architecture(config: Any, where: str) -> nn.Module:
    """Build a model that is called ``model(inputs, data_samples, mode=...)``.

    Args:
        config: a module; ``dict(cfg_path='mmcls::resnet/resnet18_8xb32_in1k.py')``, the model of another config;
            ``dict(type='pkg.module:factory', ...)``, a plain classifier; or a registered type and its arguments.
        where: ``architecture`` or ``teacher``, for messages.

    Raises:
        RecipeError: it is none of those.
        ModelError: it cannot be built.
        MissingDependency: the package it comes from is not installed.
    """
    if isinstance(config, nn.Module):
        if isinstance(config, BaseModel):
            # mmengine initialises what it takes for new when training starts.
            config._is_init = True
            return config
        return as_classifier(config)
    if not isinstance(config, Mapping):
        raise RecipeError(f"{where}: expected a dict or a module, got {type(config).__name__}")
    if "cfg_path" in config:
        return build_architecture(_read(config, where), where)
    name, keywords = split_type(config, where)
    if ":" in name:
        return _call_factory(name, keywords, where)
    if "." not in name:
        name = f"{'mmcls' if lazy.available('mmcls') else 'mmpretrain'}.{name}"
    model = build_foreign(name, copy.deepcopy(keywords), where)
    if not isinstance(model, BaseModel):
        raise ModelError(f"{where} '{name}': expected an mmengine BaseModel, got {type(model).__name__}")
    return model


def load_teacher(
    teacher: nn.Module, config: Any, checkpoint: str | None, key_mapping: Mapping[str, str] | None, allow_random: bool
) -> None:
    """Load the teacher's weights, in place.

    Args:
        teacher: as ``build_architecture`` made it of ``config``.
        config: says whether the weights come some other way.
        checkpoint: file; None: there is none.
        key_mapping: regular expression -> replacement for its keys.
        allow_random: train against random weights where there is no checkpoint.

    Raises:
        RecipeError: there is no checkpoint and nobody asked for random weights.
        CheckpointError: it cannot be read or does not match.
    """
    if checkpoint:
        if isinstance(teacher, BaseModel):
            teacher.init_weights()
        load_into(teacher, checkpoint, key_mapping=key_mapping)
        return
    if not allow_random and isinstance(config, Mapping) and not _brings_weights(config):
        raise RecipeError(
            "the teacher has no weights: expected teacher_ckpt, got none",
            hint="teacher_ckpt='teacher.pth', or random_teacher=True to learn from random weights",
        )


def _read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    path = str(config["cfg_path"])
    if config.get("pretrained"):
        raise CheckpointError(
            f"{where}: pretrained=True of '{path}' would download weights, and nothing is downloaded",
            hint="get the file and name it in teacher_ckpt, or in init_cfg",
        )
    found = read_config(_locate(path, where), {})[0]
    model = found.get("model")
    if not isinstance(model, dict) or "type" not in model:
        raise RecipeError(f"{where}: the config '{path}' has no model")
    model.setdefault("_scope_", found.get("default_scope") or path.partition("::")[0])
    if model.get("data_preprocessor") is None and found.get("data_preprocessor") is not None:
        model["data_preprocessor"] = found["data_preprocessor"]
    return model


def _locate(path: str, where: str) -> Path:
    package, separator, inside = path.partition("::")
    if not separator:
        return Path(path)
    lazy.require(package, extra="openmmlab" if package == "mmpretrain" else package)
    spec = importlib.util.find_spec(package)
    folder = Path((spec and spec.origin) or "").parent / ".mim" / "configs"
    file = folder / (inside if inside.endswith(".py") else f"{inside}.py")
    if not file.is_file():
        raise RecipeError(f"{where}: {package} has no config '{inside}'", hint=f"look in {folder}")
    return file


def _call_factory(name: str, keywords: Mapping[str, Any], where: str) -> nn.Module:
    arguments = dict(keywords)
    smoothing = arguments.pop("label_smoothing", 0.0)
    factory = resolve_factory(name, Path())
    try:
        module = factory(**arguments)
    except Exception as error:
        raise ModelError(f"{where} '{name}' cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{where} '{name}': expected a torch.nn.Module, got {type(module).__name__}")
    return module if isinstance(module, BaseModel) else as_classifier(module, smoothing)


def _brings_weights(config: Any) -> bool:
    """Whether an ``init_cfg`` or a path inside ``config`` loads weights when the model is built or initialised."""
    if isinstance(config, Mapping):
        named = config.get("checkpoint_path") or isinstance(config.get("pretrained"), str)
        return bool(named) or config.get("type") == "Pretrained" or any(map(_brings_weights, config.values()))
    return isinstance(config, list | tuple) and any(_brings_weights(value) for value in config)
