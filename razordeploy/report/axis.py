"""Straight axes: round ticks, and places as a share of the plot."""

from __future__ import annotations

import math
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_WRITTEN_OUT = 4
"""Decimals; a scale with more of them has its ticks written with an exponent."""
_LARGE = 1e6


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A scale from ``low`` to ``high``."""

    low: float
    high: float
    ticks: tuple[float, ...]
    """Round values inside the scale."""
    decimals: int
    """Of the ticks."""
    logarithmic: bool = False
    """True: equal ratios take equal room; both ends are positive."""

    def percent(self, value: float) -> float:
        """Place of ``value``: 0 is ``low``, 100 is ``high``; what lies outside is put on the edge."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        share = (value - low) / (high - low)
        return round(100 * min(1.0, max(0.0, share)), 2)

    def label(self, tick: float) -> str:
        """Write a tick."""
        tick = round(tick, self.decimals + 1) + 0.0  # no -0
        return f"{tick:.{self.decimals}f}" if self.decimals <= _WRITTEN_OUT and abs(tick) < _LARGE else f"{tick:g}"


def axis(low: float, high: float, *, most: int = 6, whole: bool = True) -> Axis:
    """Make an axis that holds ``low`` to ``high``.

    Args:
        low: smallest value.
        high: largest value; where it is no larger than ``low``, the axis is one unit of its own size long.
        most: ticks, at most.
        whole: True begins and ends the axis at a tick.
    """
    if high <= low:
        high = low + (abs(low) or 1.0)
    step, decimals = _step((high - low) / max(1, most - 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if whole:
        low, high = first * step, last * step
    ticks = tuple(i * step for i in range(first, last + 1) if low - step * 1e-9 <= i * step <= high + step * 1e-9)
    return Axis(low=low, high=high, ticks=ticks, decimals=decimals)


def log_axis(low: float, high: float, *, most: int = 6) -> Axis:
    """Make a logarithmic axis from ``low`` to ``high``, both positive, with ticks such as 1, 2, 5, 10, 20."""
    high = max(high, low * 1.01)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = tuple(t for p in powers for f in factors if low <= (t := f * 10.0**p) <= high)
        if len(ticks) <= most:
            break
    every = -(-len(ticks) // most) or 1
    return Axis(low=low, high=high, ticks=ticks[::every], decimals=_WRITTEN_OUT + 1, logarithmic=True)


def _step(wanted: float) -> tuple[float, int]:
    """The round step that is not smaller than ``wanted``, and the decimals it takes to write it."""
    exponent = math.floor(math.log10(wanted))
    factor = next(f for f in _STEPS if f * 10.0**exponent >= wanted * (1 - 1e-9))
    decimals = max(0, -exponent + (factor == 2.5) - (factor == 10))
    return factor * 10.0**exponent, decimals
