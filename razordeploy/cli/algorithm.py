"""An algorithm that decides what is deployed of its ``architecture``: built by its recipe, with its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from razordeploy.assemble import is_of
from razordeploy.capture.build import locate
from razordeploy.capture.checkpoint import load_into, load_state_dict
from razordeploy.capture.openmmlab import make_plain
from razordeploy.compress.algorithms import NAS, PRUNING, TRAINERS, algorithm_name, built_algorithm
from razordeploy.config.recipe import Recipe
from razordeploy.config.structure import SubnetConfig
from razordeploy.errors import ModelError
from razordeploy.subnet.fix import export_fix_subnet, is_of_widths, load_fix_subnet
from razordeploy.subnet.fix_mutables import is_of_mutables
from razordeploy.subnet.mutators.channel import ChannelMutator

_WRAPPED = "architecture."
DECIDED, DECIDED_WEIGHTS = "fix_subnet.yaml", "fix_subnet_weight.pth"
"""What training leaves beside its checkpoint where it decides on a subnet, and the sliced weights of that."""


def has_choices(recipe: Recipe) -> bool:
    """Whether the recipe's model is an algorithm that chooses a part of its architecture."""
    if "onnx" in recipe.model or ":" in recipe.model["type"] or "architecture" not in recipe.model:
        return False
    return TRAINERS.get(algorithm_name(recipe)) in (NAS, PRUNING)


def open_algorithm(recipe: Recipe, file: str | Path | None = None, *, trust: bool = False) -> Any:
    """Build the recipe's algorithm and load its weights; None where the weights are those of a sliced model.

    Args:
        recipe: names the algorithm.
        file: weights of the algorithm, or of its architecture alone; None: random ones.
        trust: let the file run code while it is loaded.

    Raises:
        RecipeError, ModelError: it cannot be built.
        CheckpointError: the weights cannot be read or do not match.
    """
    algorithm = built_algorithm(recipe)
    if file is None:
        return algorithm
    trusted = trust or recipe.trust_checkpoint
    state = load_state_dict(file, trust=trusted)
    wrapped = any(key.startswith(_WRAPPED) for key in state)
    target: nn.Module = algorithm if wrapped else algorithm.architecture
    if recipe.subnet is not None and not is_of(recipe, target, state, file):
        return None
    load_into(target, file, key_mapping=recipe.key_mapping, strict=recipe.strict, trust=trusted)
    return algorithm


def decided(recipe: Recipe, checkpoint: Path | None) -> tuple[Recipe, str | Path | None]:
    """The recipe and its weights; where nobody says which subnet, what training has decided beside the weights."""
    file = checkpoint if checkpoint is not None else recipe.checkpoint
    if file is None:
        file = None if recipe.subnet is None else recipe.subnet.checkpoint
    file = None if file is None else locate(file, recipe)
    if file is None or recipe.subnet is not None:
        return recipe, file
    subnet, weights = Path(file).with_name(DECIDED), Path(file).with_name(DECIDED_WEIGHTS)
    if not subnet.is_file():
        return recipe, file
    if checkpoint is None and weights.is_file():
        # Which channels stay may have been decided by more than the weights tell.
        file = weights
    return dataclasses.replace(recipe, subnet=SubnetConfig(file=str(subnet))), file


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
        choices = choices_of(content)
        if not choices:
            raise ModelError(
                f"the subnet says of nothing what is chosen; it has {', '.join(map(str, list(content)[:3]))}",
                hint="expected {'path of a mutable': {'chosen': ...}}, or widths by channel unit",
            )
        if not isinstance(mutator, ChannelMutator):
            first = next(iter(choices))
            raise ModelError(
                f"the subnet gives widths to channel units such as '{first}', and the supernet of "
                f"{type(algorithm).__name__} chooses by mutables: it is of another model"
            )
        mutator.set_choices(choices)
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
    from razordeploy.compress.algorithm.plain import as_plain

    if hasattr(type(static), "plain_class"):
        return as_plain(static)
    return make_plain(static)[0] if hasattr(static, "data_preprocessor") else static


def choices_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Choice by unit of a channel mutator's template, its units, or widths by unit."""
    if is_of_widths(content):
        return dict(content)
    units = content["channel_unit_cfg"].get("units", {}) if "channel_unit_cfg" in content else content
    return {name: entry["choice"] for name, entry in units.items() if isinstance(entry, Mapping) and "choice" in entry}
