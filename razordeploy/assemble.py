"""From a recipe to the model that it deploys: the whole one, or the part that its ``prune`` or ``subnet`` section says.

A recipe with such a section takes weights of the full model, which are sliced, or of the part itself, as training it
leaves them: their shapes tell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.capture.build import BuiltModel, build_model, locate
from razordeploy.capture.checkpoint import load_into, load_state_dict, renamed
from razordeploy.capture.config_model import read_model_config
from razordeploy.config.recipe import Recipe
from razordeploy.config.structure import SubnetConfig
from razordeploy.errors import CheckpointError, RecipeError
from razordeploy.subnet.files import read_mapping
from razordeploy.subnet.fix import load_fix_subnet
from razordeploy.subnet.narrow import narrow

Inputs = Callable[[BuiltModel], tuple[Any, ...]]


def assemble(
    recipe: Recipe, checkpoint: str | Path | None = None, *, trust: bool = False, inputs: Inputs | None = None
) -> BuiltModel:
    """Build the model that ``recipe`` deploys, with its weights; as ``build_model``, and narrowed where it says so.

    Args:
        recipe: what to build.
        checkpoint: takes the place of the recipe's own.
        trust: let the checkpoint run code while it is loaded.
        inputs: gives inputs to trace the model with; None: random ones of the shapes that the recipe tells.

    Raises:
        RecipeError: the model has to be traced, and nothing tells the shape of its inputs.
        UsageError, ModelError: the section does not fit the model.
        CheckpointError: the weights fit neither the full model nor the part.
        MissingDependency: the package it comes from is not installed.
    """
    recipe = _of_sub_model(recipe)
    section = recipe.prune or recipe.subnet
    if section is None:
        return build_model(recipe, checkpoint, trust=trust)
    whole = dataclasses.replace(recipe, checkpoint=None, prune=None, subnet=None)
    given = checkpoint if checkpoint is not None else recipe.checkpoint or section.checkpoint
    built = build_model(whole)
    if given is None:
        return _narrowed(recipe, built, inputs)
    trusted = trust or recipe.trust_checkpoint
    file = locate(given, recipe)
    state = load_state_dict(file, trust=trusted)
    if not is_of(recipe, built.module, state, file):
        part = _narrowed(recipe, built, inputs)
        if is_of(recipe, part.module, state, file):
            own = part.module.state_dict()
            mapping = None if own.keys() <= state.keys() else recipe.key_mapping
            load_into(part.module, file, key_mapping=mapping, strict=recipe.strict, trust=trusted)
            return part
    try:
        built = build_model(whole, file, trust=trusted)
    except CheckpointError as error:
        raise CheckpointError(
            f"'{file}' is neither of the full model nor of the part that {recipe.path} deploys: {error}"
        ) from error
    return _narrowed(recipe, built, inputs)


def _of_sub_model(recipe: Recipe) -> Recipe:
    """mmrazor's ``sub_model`` as the recipe of its ``cfg`` with a ``subnet`` section."""
    given = recipe.model
    if str(given.get("type")).rpartition(".")[2] != "sub_model" or not isinstance(given.get("fix_subnet"), str):
        return recipe
    model = given.get("cfg")
    if not isinstance(model, dict):
        raise RecipeError(f"{recipe.path}: sub_model needs cfg, the model that fix_subnet is a part of")
    if "cfg_path" in model:
        model = read_model_config(model, recipe.path.parent, "cfg")
    options = {key: given[key] for key in ("mode", "prefix", "extra_prefix") if given.get(key) is not None}
    subnet = SubnetConfig(file=given["fix_subnet"], **options)
    return dataclasses.replace(recipe, model=model, subnet=subnet)


def is_of(recipe: Recipe, module: nn.Module, state: dict[str, Tensor], file: str | Path) -> bool:
    """Tell whether ``state`` has every tensor of ``module``, in its shape."""
    own = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    found = state if own.keys() <= state.keys() else renamed(state, recipe.key_mapping, file)
    return all(key in found and found[key].shape == value.shape for key, value in own.items())


def _narrowed(recipe: Recipe, built: BuiltModel, inputs: Inputs | None) -> BuiltModel:
    examples = (inputs or _random_inputs(recipe))(built)
    if recipe.prune is not None:
        rule = recipe.prune
        found = narrow(
            built.module, choice=rule.choice, units=rule.units, round_to=rule.round_to, example_inputs=examples
        )
        return dataclasses.replace(built, module=found.module, subnet=found.subnet)
    assert recipe.subnet is not None
    wanted = recipe.subnet
    content = read_mapping(locate(wanted.file, recipe))
    load_fix_subnet(built.module, content, wanted.mode, wanted.prefix, wanted.extra_prefix, example_inputs=examples)
    return dataclasses.replace(built, module=built.module.eval(), subnet=content)


def _random_inputs(recipe: Recipe) -> Inputs:
    def make(built: BuiltModel) -> tuple[Any, ...]:
        if built.example_inputs is not None:
            return built.example_inputs
        if built.input_shapes is None:
            raise RecipeError(
                f"{recipe.path}: nothing tells the shape of the inputs, which narrowing the model takes",
                hint="deploy=dict(input_shape=(3, 224, 224))",
            )
        generator = torch.Generator().manual_seed(recipe.seed)
        return tuple(torch.randn(2, *shape, generator=generator) for shape in built.input_shapes)

    return make
