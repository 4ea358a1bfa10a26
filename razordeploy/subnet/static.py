"""From a supernet at its current choice to a plain model of that width."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.errors import ModelError, nearest
from razordeploy.subnet.channel_graph import ChannelGraph, channel_graph
from razordeploy.subnet.dynamic_ops.base import DynamicMixin
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.slice import slice_model
from razordeploy.subnet.tracer.unit import PrunableUnit


def become(module: nn.Module, other: nn.Module) -> None:
    """Turn ``module`` into ``other``, so that whoever holds it holds that."""
    me: Any = module
    me.__class__ = type(other)
    me.__dict__ = other.__dict__


def make_static(model: nn.Module) -> nn.Module:
    """Make every dynamic operation of ``model`` plain, at its current choice, in place; return ``model``.

    Raises:
        ModelError: a mutable of an operation is not fixed.
    """
    return _replace(model, lambda operation: operation.to_static_op())


def make_plain(model: nn.Module) -> nn.Module:
    """Make every dynamic operation of ``model`` plain, of full width, in place; return ``model``."""
    return _replace(model, lambda operation: operation.to_plain_op())


def _replace(model: nn.Module, convert: Any) -> nn.Module:
    # Children first: a chain becomes plain together with its links.
    for module in reversed(list(model.modules())):
        if isinstance(module, DynamicMixin):
            become(module, convert(module))
    return model


def static_copy(architecture: nn.Module, mutator: ChannelMutator, inputs: tuple[Tensor, ...] | None) -> nn.Module:
    """A plain, sliced copy of ``architecture`` at the current choices of ``mutator``.

    A model that runs sliced has its layers sliced one by one; of one that needs its full widths the captured graph
    says what has to change, which takes example inputs.

    Raises:
        ModelError: inputs are needed and there are none.
    """
    unfixed = copy.deepcopy(architecture)
    if mutator.forward_mode == "slice":
        return make_static(unfixed)
    if inputs is None:
        raise ModelError(
            f"{type(architecture).__name__} runs masked ({mutator.masked_because}), so slicing it takes example inputs",
            hint="give parse_cfg a demo_input, or pass example_inputs",
        )
    plain = make_plain(unfixed)
    graph = mutator.graph or channel_graph(plain, inputs)
    masks = _masks(graph, mutator, type(architecture).__name__)
    with torch.no_grad():
        return slice_model(plain, graph, masks, example_inputs=inputs).module if masks else plain


def _masks(graph: ChannelGraph, mutator: ChannelMutator, model: str) -> dict[str, Tensor]:
    """By name of the traced unit, what is kept of those that are narrower."""
    names = traced_names(graph, mutator, model)
    return {names[unit.name]: unit.mask.cpu() for unit in mutator.all_units if not bool(unit.mask.all())}


def traced_names(graph: ChannelGraph, mutator: ChannelMutator, model: str) -> dict[str, str]:
    """By name of the mutator's unit, the name of the same in ``graph``.

    Args:
        graph: of the mutator's model.
        mutator: that may know its units from a config.
        model: what the model is called in messages.

    Raises:
        ModelError: the graph has no such unit, or one of another width.
    """
    names = {alias: traced for traced, unit in graph.units.items() for alias in _names(unit)}
    found: dict[str, str] = {}
    for unit in mutator.all_units:
        traced = next((names[name] for name in (unit.name, *unit.aliases()) if name in names), None)
        if traced is None or graph.units[traced].channels != unit.num_channels:
            raise ModelError(
                f"{model} has no unit '{unit.name}' any more: the model has changed since its units were written",
                hint=nearest(unit.name, names),
            )
        found[unit.name] = traced
    return found


def _names(unit: PrunableUnit) -> list[str]:
    """The unit's name, and those it would have by its other producing layers."""
    names = [unit.name]
    for member in unit.outputs():
        starts = [(span.offset, span.offset + (span.count - 1) * span.stride + span.block) for span in member.spans]
        first, last = min(start for start, _ in starts), max(end for _, end in starts)
        names.append(f"{member.module}_({first}, {last})_{unit.channels}")
    return names
