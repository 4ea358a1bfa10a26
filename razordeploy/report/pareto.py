"""Quality against cost: every candidate a dot, the front a line, one of them named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from razordeploy.report.axis import Axis, axis, log_axis

_SPREAD = 20.0
"""Ratio of the largest to the smallest cost from which on the cost axis is logarithmic."""
_TAG_EDGE = 70.0
"""Percent from which on a tag stands to the left of its dot."""
_TAG_CHARACTER, _TAG_LINE = 0.8, 5.0
"""Percent of the plot's width and height that a character and a line of a tag take, about."""


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A name beside a dot."""

    left: float
    """Percent."""
    top: float
    text: str
    before: bool
    """True: it ends at the dot, as there is no room behind it."""
    line: int = 0
    """Lines below the dot, above it where negative: where it stands clear of the others."""


@dataclass(frozen=True, kw_only=True)
class ParetoPlot:
    """Paths in a view box of 1000 by 1000, and the axes."""

    others: str
    front: str
    """Steps: a candidate of the front is the best of all up to the cost of the next."""
    front_dots: str
    picked: str
    tags: tuple[Tag, ...]
    x: Axis
    y: Axis


def front_indices(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points that no other beats or equals in both, the cheapest first.

    Args:
        points: (cost, quality).
    """
    found: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not found or points[i][1] > points[found[-1]][1]:
            found.append(i)
    return found


def pareto_plot(points: Sequence[tuple[float, float]], named: Sequence[tuple[int, str]] = ()) -> ParetoPlot:
    """Plot (cost, quality) points; ``named`` are positions and what is written beside them."""
    costs, values = [c for c, _ in points] or [0.0], [v for _, v in points] or [0.0]
    low, high = min(costs), max(costs)
    if low > 0 and high > _SPREAD * low:
        x = log_axis(low / 1.1, high * 1.1, most=6)
    else:
        room = 0.05 * (high - low)
        x = axis(max(0.0, low - room), high + room, most=6)
    y = axis(min(values), max(values), most=6)
    places = [(x.percent(cost), 100 - y.percent(value)) for cost, value in points]
    front = front_indices(points)
    on_front = set(front)
    steps = "".join(
        f"M{_at(*places[i])}" if not k else f"H{_unit(places[i][0])}V{_unit(places[i][1])}" for k, i in enumerate(front)
    )
    return ParetoPlot(
        others=_dots([place for i, place in enumerate(places) if i not in on_front]),
        front=f"{steps}H1000" if front else "",
        front_dots=_dots([places[i] for i in front]),
        picked=_dots([places[i] for i, _ in named]),
        tags=_tags([(*places[i], text) for i, text in named]),
        x=x,
        y=y,
    )


def _tags(named: Sequence[tuple[float, float, str]]) -> tuple[Tag, ...]:
    """Tags of (left, top, text), each on the nearest line where it covers no other."""
    found: list[Tag] = []
    taken: list[tuple[float, float, float]] = []
    for left, top, text in named:
        before, width = left > _TAG_EDGE, _TAG_CHARACTER * (len(text) + 3)
        start = left - width if before else left
        line = next(
            line
            for line in (0, *(sign * n for n in range(1, len(named) + 1) for sign in (-1, 1)))
            if all(
                start + width <= other or other_end <= start or abs(top + line * _TAG_LINE - height) >= _TAG_LINE
                for other, other_end, height in taken
            )
        )
        taken.append((start, start + width, top + line * _TAG_LINE))
        found.append(Tag(left=left, top=top, text=text, before=before, line=line))
    return tuple(found)


def _dots(places: Sequence[tuple[float, float]]) -> str:
    return "".join(f"M{_at(*place)}h0" for place in places)


def _at(left: float, top: float) -> str:
    return f"{_unit(left)} {_unit(top)}"


def _unit(percent: float) -> str:
    return f"{10 * percent:.0f}"
