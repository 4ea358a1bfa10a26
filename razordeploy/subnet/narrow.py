"""A model narrowed by a rule: a share of its channels, widths by name, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from razordeploy.subnet.channel_graph import channel_graph
from razordeploy.subnet.fix import check_units
from razordeploy.subnet.slice import slice_model


@dataclass(frozen=True, kw_only=True)
class Narrowed:
    """A static model, and the subnet that it is."""

    module: nn.Module
    subnet: dict[str, int]
    """Channels by unit, of every unit that was given a width; ``load_fix_subnet`` takes it."""


def narrow(
    model: nn.Module,
    *,
    choice: float | None = None,
    units: Mapping[str, int | float] | None = None,
    round_to: int = 1,
    example_inputs: Any,
) -> Narrowed:
    """Slice a copy of ``model`` down to the channels of the largest filters.

    Args:
        model: any module; left as it was.
        choice: share of the channels to keep in every unit; None: only ``units``.
        units: channels or share by unit; they override ``choice``.
        round_to: widths are multiples of so many channels.
        example_inputs: as of ``prune``.

    Raises:
        UsageError: a width that is zero, too large or not divisible.
        ModelError: a unit that the model has not, a model that cannot be captured or has nothing to prune.
    """
    graph = channel_graph(model, example_inputs)
    given = dict(units or {})
    check_units(graph, given, type(model).__name__)
    wanted: dict[str, int | float] = {}
    if choice is not None and graph.prunable:
        wanted = dict(graph.select(choice, round_to=round_to).widths)
    wanted |= given
    sliced = slice_model(model, graph, wanted, example_inputs=example_inputs, round_to=round_to)
    return Narrowed(module=sliced.module, subnet=dict(sliced.selection.widths))
