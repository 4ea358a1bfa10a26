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
from razordeploy.subnet.channel_graph import channel_graph
from razordeploy.subnet.compose import composed
from razordeploy.subnet.files import read_mapping
from razordeploy.subnet.fix import load_fix_subnet
from razordeploy.subnet.fix_mutables import is_of_mutables
from razordeploy.subnet.narrow import narrow

Inputs = Callable[[BuiltModel], tuple[Any, ...]]


def assemble(
    recipe: Recipe,
    checkpoint: str | Path | None = None,
    *,
    trust: bool = False,
    inputs: Inputs | None = None,
    switch: bool = True,
) -> BuiltModel:
    """Build the model that ``recipe`` deploys, with its weights; as ``build_model``, and narrowed where it says so.

    Args:
        recipe: what to build.
        checkpoint: takes the place of the recipe's own.
        trust: let the checkpoint run code while it is loaded.
        inputs: gives inputs to trace the model with; None: random ones of the shapes that the recipe tells.
        switch: as ``build_model``; what is narrowed is always switched.

    Raises:
        RecipeError: the model has to be traced, and nothing tells the shape of its inputs.
        UsageError, ModelError: the section does not fit the model.
        CheckpointError: the weights fit neither the full model nor the part.
        MissingDependency: the package it comes from is not installed.
    """
    recipe = _of_sub_model(recipe)
    section = recipe.prune or recipe.subnet
    if section is None:
        return build_model(recipe, checkpoint, trust=trust, switch=switch)
    build, kept = _whole(recipe, inputs)
    given = checkpoint if checkpoint is not None else recipe.checkpoint or section.checkpoint or kept
    built = build(None, False)
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
        built = build(file, trusted)
    except CheckpointError as error:
        raise CheckpointError(
            f"'{file}' is neither of the full model nor of the part that {recipe.path} deploys: {error}"
        ) from error
    return _narrowed(recipe, built, inputs)


def _whole(recipe: Recipe, inputs: Inputs | None) -> tuple[Callable[[str | Path | None, bool], BuiltModel], str | None]:
    """What builds the model that is narrowed from its weights, and the weights that belong to it, if any."""
    whole = dataclasses.replace(recipe, checkpoint=None, prune=None, subnet=None)
    part = recipe.prune.of if recipe.prune is not None else None
    if part is None:
        return lambda file, trust: build_model(whole, file, trust=trust), None
    first = dataclasses.replace(whole, subnet=dataclasses.replace(part, checkpoint=None))
    return lambda file, trust: assemble(first, file, trust=trust, inputs=inputs), part.checkpoint


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
        subnet = found.subnet if rule.of is None else _of_whole(recipe, rule.of, built.module, found.subnet, examples)
        return dataclasses.replace(built, module=found.module, subnet=subnet)
    assert recipe.subnet is not None
    wanted = recipe.subnet
    content = read_mapping(locate(wanted.file, recipe))
    load_fix_subnet(built.module, content, wanted.mode, wanted.prefix, wanted.extra_prefix, example_inputs=examples)
    return dataclasses.replace(built, module=built.module.eval(), subnet=content)


def _of_whole(
    recipe: Recipe, part: SubnetConfig, module: nn.Module, widths: dict[str, int], examples: tuple[Any, ...]
) -> dict[str, int] | None:
    """The subnet of the whole model that ``module``, a part of it, is at ``widths``; None for one of mutables."""
    if is_of_mutables(read_mapping(locate(part.file, recipe))):
        return None
    whole = build_model(dataclasses.replace(recipe, checkpoint=None, prune=None, subnet=None)).module
    return composed(channel_graph(whole, examples), channel_graph(module, examples), widths)


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
