"""Students and teachers from what a recipe says of them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mmengine.model import BaseModel
from torch import nn

from razordeploy import lazy
from razordeploy.capture.checkpoint import load_into
from razordeploy.capture.config_model import read_model_config
from razordeploy.capture.factory import resolve_factory
from razordeploy.compress.algorithm.build import build_foreign, construct, split_type
from razordeploy.compress.algorithm.plain import as_classifier
from razordeploy.errors import ModelError, RecipeError

_FOLDER: ContextVar[Path] = ContextVar("folder", default=Path())


@contextlib.contextmanager
def recipe_folder(folder: Path) -> Iterator[None]:
    """Look for factories, configs and checkpoints in ``folder`` too while the block runs."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


def current_folder() -> Path:
    """The folder of the ``recipe_folder`` block that runs, or the working directory."""
    return _FOLDER.get()


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
        return build_architecture(read_model_config(config, _FOLDER.get(), where), where)
    name, keywords = split_type(config, where)
    if ":" in name:
        return _call_factory(name, keywords, where)
    own = _own(name)
    if own is not None:
        return construct(own, copy.deepcopy(keywords), where)
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
        load_into(teacher, beside(checkpoint), key_mapping=key_mapping)
        if isinstance(teacher, BaseModel):
            # mmengine initialises what it takes for new when training starts.
            teacher._is_init = True
        return
    if not allow_random and isinstance(config, Mapping) and not _brings_weights(config):
        raise RecipeError(
            "the teacher has no weights: expected teacher_ckpt, got none",
            hint="teacher_ckpt='teacher.pth', or random_teacher=True to learn from random weights",
        )


def beside(path: str) -> str | Path:
    """``path`` from the working directory, or else from the recipe's folder."""
    inside = _FOLDER.get() / path
    return inside if not Path(path).expanduser().exists() and inside.exists() else path


def _own(name: str) -> type[BaseModel] | None:
    """A whole model that this package registers under ``name``."""
    if "." in name:
        return None
    from razordeploy.registry import MODELS

    found = MODELS.get(f"razordeploy.{name}")
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _call_factory(name: str, keywords: Mapping[str, Any], where: str) -> nn.Module:
    arguments = dict(keywords)
    smoothing = arguments.pop("label_smoothing", 0.0)
    factory = resolve_factory(name, _FOLDER.get())
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
