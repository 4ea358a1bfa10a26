"""Search spaces as ``[low, high, step]``."""

from __future__ import annotations

from collections.abc import Sequence

from razordeploy.errors import RecipeError


class Choices(tuple[int, ...]):
    """Values as they are, where ``[low, high, step]`` would be a range."""


def parse_values(ranges: Sequence[Sequence[int | float]], name: str) -> list[list[int | float]]:
    """``[low, high, step]`` of each stage -> its values, ``high`` among them; ``Choices`` are the values themselves.

    Args:
        ranges: one entry a stage: three numbers that are a range, the step above 0.
        name: of the dimension, for messages.

    Raises:
        RecipeError: a range that is none.
    """
    found: list[list[int | float]] = []
    for stage, entry in enumerate(ranges):
        if isinstance(entry, Choices):
            found.append(sorted(set(entry)))
            continue
        if len(entry) != 3:
            raise RecipeError(f"{name} of stage {stage}: expected [low, high, step], got {list(entry)}")
        low, high, step = entry
        if step <= 0 or high < low:
            raise RecipeError(f"{name} of stage {stage}: expected low <= high and step > 0, got {list(entry)}")
        count = int((high - low) / step + 1e-6)
        found.append([low + index * step for index in range(count + 1)])
    return found
