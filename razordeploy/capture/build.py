"""From a recipe to its model: built, loaded with its weights, and reduced to its deploy form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from razordeploy.capture.checkpoint import load_into
from razordeploy.capture.config_model import deployed
from razordeploy.capture.deploy_form import switch_all
from razordeploy.capture.detector import DenseHead, build_detector, guess_image_shape, is_detector, make_dense
from razordeploy.capture.factory import resolve_factory
from razordeploy.capture.openmmlab import build_classifier, guess_input_shape, make_plain
from razordeploy.config.recipe import Recipe
from razordeploy.errors import CheckpointError, ModelError, RecipeError


@dataclass(frozen=True, kw_only=True)
class BuiltModel:
    """A model ready for capture."""

    module: nn.Module
    """In eval mode; takes plain tensors (N, ...), returns a tensor or a tuple of tensors."""
    preprocess: nn.Module | None
    """The model's own data preprocessor: a batch of its dataloader -> dict with ``inputs``. None: it has none."""
    input_shapes: tuple[tuple[int, ...], ...] | None
    """Shape of every input without the batch; None means that the recipe does not tell, and the data has to."""
    example_inputs: tuple[torch.Tensor, ...] | None = None
    """Inputs that the model itself knows; None: any of its shapes will do."""
    input_names: tuple[str, ...] | None = None
    """Names that the model itself has for its inputs; None: it has none."""
    output_names: tuple[str, ...] | None = None
    subnet: dict[str, Any] | None = None
    """What a subnet file says of it; None: it is the whole model."""
    classifies: bool = True
    """False: its outputs are known not to be one row of logits a sample."""
    dense: DenseHead | None = None
    """Of detectors: raw outputs -> boxes, or losses. None: the outputs are what is judged."""


def build_model(
    recipe: Recipe, checkpoint: str | Path | None = None, *, trust: bool = False, switch: bool = True
) -> BuiltModel:
    """Build the model of ``recipe`` and load its weights.

    Without a checkpoint the weights are random, the same ones for the same ``recipe.seed``. Branches that exist for
    training only (RepVGG, MobileOne ...) are merged once the weights are in.

    Args:
        recipe: what to build.
        checkpoint: takes the place of the recipe's own; a relative path starts at the working directory, or else at
            the recipe's folder.
        trust: let the checkpoint run code while it is loaded, as ``trust_checkpoint`` of the recipe does.
        switch: False leaves the branches to the capture, which merges them where eight bits hold the sum.

    Raises:
        ModelError: the model cannot be found or built.
        CheckpointError: its weights cannot be read or do not match.
        MissingDependency: the package it comes from is not installed.
    """
    if recipe.prune is not None or recipe.subnet is not None:
        raise ValueError("the recipe deploys a part of its model: call razordeploy.assemble.assemble()")
    if "onnx" in recipe.model:
        return _import(recipe, checkpoint)
    recipe = deployed(recipe)
    shapes = recipe.deploy.input_shapes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        is_factory = ":" in recipe.model["type"]
        detects = not is_factory and is_detector(recipe)
        module = _call_factory(recipe) if is_factory else (build_detector if detects else build_classifier)(recipe)
    file = checkpoint if checkpoint is not None else recipe.checkpoint
    if file is not None:
        load_into(
            module,
            locate(file, recipe),
            key_mapping=recipe.key_mapping,
            strict=recipe.strict,
            trust=trust or recipe.trust_checkpoint,
        )
    module.eval()
    if switch:
        switch_all(module)
    preprocess, dense = None, None
    if detects:
        shapes = shapes or _image_shapes(recipe)
        module, preprocess, dense = make_dense(module, shapes[0])
    elif not is_factory:
        module, preprocess = make_plain(module)
        guess = guess_input_shape(recipe)
        shapes = shapes or ((guess,) if guess else None)
    return BuiltModel(module=module, preprocess=preprocess, input_shapes=shapes, classifies=dense is None, dense=dense)


def _image_shapes(recipe: Recipe) -> tuple[tuple[int, ...], ...]:
    guess = guess_image_shape(recipe)
    if guess is None:
        raise RecipeError(
            f"{recipe.path}: nothing tells the size of the images", hint="deploy=dict(input_shape=(3, 640, 640))"
        )
    return (guess,)


def _import(recipe: Recipe, checkpoint: str | Path | None) -> BuiltModel:
    from razordeploy.capture.onnx_import.load import import_onnx

    given = checkpoint if checkpoint is not None else recipe.checkpoint
    if given is not None:
        raise CheckpointError(f"'{recipe.model_name}' holds its own weights, got the checkpoint '{given}' too")
    file = locate(recipe.model["onnx"], recipe)
    module, examples = import_onnx(file, shapes=recipe.deploy.input_shapes)
    return BuiltModel(
        module=module,
        preprocess=None,
        input_shapes=tuple(tuple(x.shape[1:]) for x in examples),
        example_inputs=examples,
        input_names=module.input_names,
        output_names=module.output_names,
        classifies=[len(spec.shape) for spec in module.outputs] == [2],
    )


def _call_factory(recipe: Recipe) -> nn.Module:
    name = recipe.model["type"]
    factory = resolve_factory(name, recipe.path.parent)
    arguments: dict[str, Any] = {key: value for key, value in recipe.model.items() if key not in ("type", "_scope_")}
    try:
        module = factory(**arguments)
    except (Exception, SystemExit) as error:
        raise ModelError(f"model '{name}' cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"model '{name}': expected a torch.nn.Module, got {type(module).__name__}")
    return module


def locate(checkpoint: str | Path, recipe: Recipe) -> str | Path:
    """A file that a recipe names: from the working directory, or else from the recipe's folder."""
    beside = recipe.path.parent / checkpoint
    return beside if not Path(checkpoint).expanduser().exists() and beside.exists() else checkpoint
