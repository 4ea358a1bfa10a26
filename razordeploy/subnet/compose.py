"""A part of a part, as a part of the whole model."""

from __future__ import annotations

from collections.abc import Mapping

from razordeploy.errors import ModelError
from razordeploy.subnet.channel_graph import ChannelGraph
from razordeploy.subnet.tracer.axes import find
from razordeploy.subnet.tracer.unit import PrunableUnit

_Place = tuple[str, int]
"""A tensor, and one of its dimensions."""


def composed(whole: ChannelGraph, part: ChannelGraph, widths: Mapping[str, int]) -> dict[str, int]:
    """Channels by unit of ``whole``, those that are narrower, of ``part`` once it has ``widths``.

    Args:
        whole: of the model that ``part`` was sliced from, whose parameters have the same names.
        part: of the sliced model.
        widths: channels by unit of ``part``; others stay.

    Raises:
        ModelError: the units of both cannot be matched.
    """
    ours, theirs = _by_place(whole), _by_place(part)
    found: dict[str, int] = {}
    for place, units in ours.items():
        matched = theirs.get(place, [])
        if len(matched) == len(units):
            now = [widths.get(unit.name, unit.channels) for unit in matched]
        elif len(units) == 1 and not matched:
            now = [_width_of(part, place, units[0])]
        else:
            raise ModelError(
                f"'{place[0]}' has {len(matched)} units in the sliced model and {len(units)} in the whole one, so what "
                "is pruned of it again cannot be said in one subnet file",
                hint="prune the whole model to the width that is wanted",
            )
        found |= {
            unit.name: width for unit, width in zip(units, now, strict=True) if unit.prunable and width < unit.channels
        }
    return found


def _by_place(graph: ChannelGraph) -> dict[_Place, list[PrunableUnit]]:
    """Units by the first place that they are made in, in the order in which they lie there."""
    found: dict[_Place, list[tuple[int, int, PrunableUnit]]] = {}
    for number, unit in enumerate(graph.units.values()):
        first = unit.outputs()[0]
        start = min(span.offset for span in first.spans)
        found.setdefault((first.tensor, first.dim), []).append((start, number, unit))
    return {place: [unit for *_, unit in sorted(entries)] for place, entries in found.items()}


def _width_of(part: ChannelGraph, place: _Place, unit: PrunableUnit) -> int:
    """Channels that are left of a unit which is none any more, because one channel cannot be pruned."""
    tensor, dim = place
    each = sum(span.positions_per_element * span.count for span in unit.outputs()[0].spans) // unit.channels
    return find(part.trace.state[tensor][dim]).size // each if tensor in part.trace.state else unit.channels
