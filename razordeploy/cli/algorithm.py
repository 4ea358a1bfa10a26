"""An algorithm that decides what is deployed of its ``architecture``: built by its recipe, with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from razordeploy.capture.build import locate
from razordeploy.capture.checkpoint import load_into, load_state_dict
from razordeploy.capture.openmmlab import make_plain
from razordeploy.config.recipe import Recipe
from razordeploy.errors import ModelError
from razordeploy.subnet.fix import export_fix_subnet, is_of_widths, load_fix_subnet
from razordeploy.subnet.fix_mutables import is_of_mutables
from razordeploy.subnet.mutators.base import BaseMutator
from razordeploy.subnet.mutators.channel import ChannelMutator

_WRAPPED = "architecture."


def open_algorithm(recipe: Recipe, checkpoint: str | Path | None = None, *, trust: bool = False) -> nn.Module | None:
    """The recipe's algorithm where it has a mutator; None where the recipe deploys its whole architecture.

    Args:
        recipe: its ``checkpoint`` is that of the supernet.
        checkpoint: weights of the algorithm, or of its architecture alone, instead.
        trust: let the checkpoint run code while it is loaded.

    Raises:
        RecipeError, ModelError: it cannot be built.
        CheckpointError: the weights do not match.
    """
    if "mutator" not in recipe.model or "architecture" not in recipe.model:
        return None
    algorithm = _built(recipe)
    given = checkpoint if checkpoint is not None else recipe.checkpoint
    if given is not None:
        file = locate(given, recipe)
        trusted = trust or recipe.trust_checkpoint
        wrapped = any(key.startswith(_WRAPPED) for key in load_state_dict(file, trust=trusted))
        target: Any = algorithm if wrapped else algorithm.architecture
        load_into(target, file, key_mapping=recipe.key_mapping, strict=recipe.strict, trust=trusted)
    return algorithm


def channel_mutator(algorithm: nn.Module, recipe: Recipe) -> ChannelMutator:
    """Its channel mutator.

    Raises:
        ModelError: it has none.
    """
    mutator = getattr(algorithm, "mutator", None)
    if not isinstance(mutator, ChannelMutator):
        raise ModelError(f"{recipe.model['type']} of {recipe.path} has no channel units: its mutator is another")
    return mutator


def fix_algorithm(
    algorithm: nn.Module, content: Mapping[str, Any] | None, *, export_channel: bool, example_inputs: Any
) -> tuple[dict[str, Any], nn.Module]:
    """The subnet that ``content`` says, or else the algorithm's current one, and its static architecture.

    Raises:
        ModelError: ``content`` is of another model, or the algorithm has not chosen yet.
    """
    mutator = getattr(algorithm, "mutator", None)
    if content is not None and is_of_mutables(content):
        static = load_fix_subnet(algorithm.architecture, content, "mutable")  # type: ignore[arg-type]
        return dict(content), static
    if content is not None:
        if not isinstance(mutator, BaseMutator):
            raise ModelError(f"{type(algorithm).__name__} has no mutator that a subnet of units could set")
        mutator.set_choices(choices_of(content))
    subnet, made = export_fix_subnet(
        algorithm,
        slice_weight=True,
        export_channel=export_channel,
        example_inputs=example_inputs if isinstance(mutator, ChannelMutator) else None,
    )
    assert made is not None
    return subnet, made


def as_deployed(static: nn.Module) -> nn.Module:
    """A static architecture with the plain call that engines are made of: tensors in, tensors out."""
    from razordeploy.compress.distill.algorithms.plain import as_plain

    if hasattr(type(static), "plain_class"):
        return as_plain(static)
    return make_plain(static)[0] if hasattr(static, "data_preprocessor") else static


def choices_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Choice by unit of a channel mutator's template, its units, or widths by unit."""
    if is_of_widths(content):
        return dict(content)
    units = content["channel_unit_cfg"].get("units", {}) if "channel_unit_cfg" in content else content
    return {name: entry["choice"] for name, entry in units.items() if isinstance(entry, Mapping) and "choice" in entry}


def _built(recipe: Recipe) -> Any:
    from razordeploy.compress.distill.train import build_algorithm

    return build_algorithm(recipe)
