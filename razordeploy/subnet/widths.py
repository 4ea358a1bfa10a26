"""Widths: ratios, numbers, and numbers that an engine likes."""

from __future__ import annotations

import math

from razordeploy.errors import ModelError

_SLACK = 1e-6


def ratio_to_number(ratio: float, total: int) -> int:
    """The number of channels that ``ratio`` of ``total`` is: rounded down, at least 1.

    The inverse of ``number / total``: what floating point loses there is given back (0.29 * 100 is 28.999...).
    """
    return max(1, math.floor(total * ratio + _SLACK))


def check_choice(choice: object, total: int, where: str) -> int:
    """Turn a number or ratio of channels into a number, or refuse it.

    Args:
        choice: int in [1, total], or float ratio in (0, 1].
        total: the full width.
        where: whose width it is, for the message.

    Raises:
        ModelError: 0, more than ``total``, or of another type.
    """
    if isinstance(choice, bool) or not isinstance(choice, int | float):
        raise ModelError(
            f"{where}: expected a number of channels from 1 to {total} or a ratio in (0, 1], got {choice!r}"
        )
    if isinstance(choice, int):
        if not 1 <= choice <= total:
            raise ModelError(f"{where}: expected a number of channels from 1 to {total}, got {choice}")
        return choice
    if not 0.0 < choice <= 1.0:
        raise ModelError(f"{where}: expected a ratio in (0, 1], got {choice}")
    return ratio_to_number(choice, total)


def make_divisible(
    value: float, divisor: int, min_value: int | None = None, min_ratio: float = 0.9, max_value: int | None = None
) -> int:
    """The multiple of ``divisor`` nearest to ``value``, halves rounded up, but never below ``min_ratio * value``.

    Args:
        value: a number of channels.
        divisor: what the result has to be divisible by.
        min_value: lower limit; None: ``divisor``.
        min_ratio: one ``divisor`` more is taken when rounding down loses more than 1 - ``min_ratio`` of ``value``.
        max_value: upper limit, reached even where it is no multiple of ``divisor``: a layer cannot grow. None: none.
    """
    low = divisor if min_value is None else min_value
    nearest = max(low, int(value + divisor / 2) // divisor * divisor)
    if nearest < min_ratio * value:
        nearest += divisor
    return nearest if max_value is None else min(nearest, max_value)
