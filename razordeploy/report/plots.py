"""The plots of the page, as shares of a box: SVG paths that stretch with it, and text that does not.

A path lives in a view box of 1000 by 1000 that takes any shape; its strokes keep their width. Ticks and marks are HTML,
placed in percent, so that they are as large on a telephone as on a wide screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from razordeploy.report.axis import Axis, axis, log_axis
from razordeploy.report.blocks import blocks
from razordeploy.report.schema import Number

_SIDE = 10
"""Units of the view box in a percent."""
_MARK_GAP = 6.5
"""Percent between two numbered marks, wide enough for their discs on a narrow screen."""
_LETTER, _MARGIN = 2.5, 2.5
"""Percent that a letter of a label, and the room around it, take on a narrow screen."""
_LEAST_SPAN = 4.0
"""dB that the noise plot spans at least."""
_ECDF_POINTS = 200
_TAIL = 1.3
"""The time axis ends at the longest percentile times this."""
_SPREAD = 12.0
"""Ratio of the longest to the shortest percentile from which on the time axis is logarithmic."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A numbered disc below the plot."""

    left: float
    """Percent."""
    number: int


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A label below a part of the plot."""

    left: float
    width: float
    text: str


@dataclass(frozen=True, kw_only=True)
class LayersPlot:
    """SQNR by layer."""

    line: str
    dots: str
    worst: str
    leaders: str
    """From the worst layers down to their marks."""
    cuts: str
    """Where a new block begins."""
    marks: tuple[Mark, ...]
    slots: tuple[tuple[Slot, ...], ...]
    """Two rows: the blocks, and the modules that those are in; only the labels that have room."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How many calls took at most so long."""

    line: str
    dots: str
    """The percentiles."""


def decibel_axis(values: Iterable[float]) -> Axis:
    """Make the one scale for all backends; it need not begin at 0, as the plot has dots and no bars."""
    found = list(values) or [0.0]
    low, high = min(found), max(found)
    room = max(0.0, _LEAST_SPAN - (high - low)) / 2
    return axis(low - room, high + room, most=6)


def layers_plot(values: Sequence[float], modules: Sequence[str], worst: Sequence[int], scale: Axis) -> LayersPlot:
    """Plot one value a layer.

    Args:
        values: SQNR in dB, in execution order.
        modules: dotted module path of each layer.
        worst: indices of the layers to point out, the worst first.
        scale: the vertical axis.
    """
    lefts = [100 * (i + 0.5) / len(values) for i in range(len(values))]
    tops = [100 - scale.percent(v) for v in values]
    places = list(zip(lefts, tops, strict=True))
    seats = _apart([lefts[i] for i in worst])
    slots = _slots(modules)
    return LayersPlot(
        line="M" + "L".join(_at(*place) for place in places),
        dots=_points(place for i, place in enumerate(places) if i not in set(worst)),
        worst=_points(places[i] for i in worst),
        leaders="".join(f"M{_at(*places[i])}L{_at(seat, 100)}" for i, seat in zip(worst, seats, strict=True)),
        cuts="".join(f"M{_at(slot.left, 0)}V1000" for slot in slots[1:]),
        marks=tuple(Mark(left=round(seat, 2), number=rank) for rank, seat in enumerate(seats, 1)),
        slots=(_labels(slots, inner=True), _labels(_parents(slots), inner=False)),
    )


def latency_axis(percentiles: Sequence[Mapping[str, Number]]) -> Axis | None:
    """Make the scale that holds all of ``percentiles``, in milliseconds; None without any.

    It begins at 0, so that lengths compare; where the slowest calls took many times as long as the usual ones, which
    would leave those no room, it is logarithmic.
    """
    found = [v for one in percentiles for v in one.values() if v is not None and v > 0]
    if not found:
        return None
    if max(found) > _SPREAD * min(found):
        return log_axis(min(found) / _TAIL, max(found) * _TAIL, most=5)
    return axis(0, _TAIL * max(found), most=5, whole=False)


def latency_curve(samples_ms: Sequence[float], percentiles: Sequence[tuple[float, float]], scale: Axis) -> Curve:
    """Plot the distribution of the calls.

    Args:
        samples_ms: every call; without them the percentiles are joined by straight lines.
        percentiles: (percent, milliseconds).
        scale: the horizontal axis.
    """
    ordered = sorted(samples_ms)
    places = [(scale.percent(ms), 100.0 - share) for share, ms in percentiles if ms <= scale.high]
    if not ordered:
        line = "M" + "L".join(_at(x, y) for x, y in places) if len(places) > 1 else ""
        return Curve(line=line, dots=_points(places))
    steps = min(len(ordered), _ECDF_POINTS)
    ranks = [round(i * (len(ordered) - 1) / max(1, steps - 1)) for i in range(steps)]
    line = f"M{_at(scale.percent(ordered[0]), 100)}"
    for rank in ranks:
        if ordered[rank] > scale.high:
            break
        line += f"H{_unit(scale.percent(ordered[rank]))}V{_unit(100 - 100 * (rank + 1) / len(ordered))}"
    return Curve(line=f"{line}H1000", dots=_points(places))


def share(value: float | None, whole: float) -> float | None:
    """Percent that ``value`` is of ``whole``; None where either is unknown or nothing."""
    if value is None or not math.isfinite(value) or not whole > 0 or not math.isfinite(whole):
        return None
    return round(min(100.0, max(0.0, 100 * value / whole)), 2)


def _slots(modules: Sequence[str]) -> list[Slot]:
    count = len(modules)
    return [
        Slot(left=100 * b.positions.start / count, width=100 * len(b.positions) / count, text=b.path)
        for b in blocks(modules, largest=max(1, count // 4), mean=2)
    ]


def _parents(slots: Sequence[Slot]) -> list[Slot]:
    """Put neighbours of one parent module together."""
    found = []
    for parent, group in groupby(slots, key=lambda slot: "" if "…" in slot.text else slot.text.rpartition(".")[0]):
        run = list(group)
        found.append(Slot(left=run[0].left, width=sum(slot.width for slot in run), text=parent))
    return found


def _labels(slots: Sequence[Slot], *, inner: bool) -> tuple[Slot, ...]:
    """Keep the labels that fit: the last component, of an outer one the whole path where it has room."""
    found = []
    for slot in slots:
        last = slot.text if "…" in slot.text else slot.text.rpartition(".")[2]
        fitting = [t for t in ([last] if inner else [slot.text, last]) if _LETTER * len(t) + _MARGIN <= slot.width]
        if fitting and fitting[0]:
            found.append(Slot(left=round(slot.left, 2), width=round(slot.width, 2), text=fitting[0]))
    return tuple(found)


def _apart(lefts: Sequence[float]) -> list[float]:
    """Move places sideways until they are ``_MARK_GAP`` apart and inside; their order from left to right stays."""
    order = sorted(range(len(lefts)), key=lambda i: lefts[i])
    seats = list(lefts)
    edge = _MARK_GAP / 2
    for before, i in zip([None, *order], order, strict=False):
        seats[i] = max(seats[i], edge if before is None else seats[before] + _MARK_GAP)
    limit = 100 - edge
    for i in reversed(order):
        seats[i] = min(seats[i], limit)
        limit = seats[i] - _MARK_GAP
    return seats


def _points(places: Iterable[tuple[float, float]]) -> str:
    """Dots: strokes of no length with round ends stay round in a stretched box."""
    return "".join(f"M{_at(x, y)}h0" for x, y in places)


def _at(left: float, top: float) -> str:
    return f"{_unit(left)} {_unit(top)}"


def _unit(percent: float) -> str:
    return f"{_SIDE * percent:.0f}"
