"""The cheapest harm within a budget: one choice per layer, exactly (multiple-choice knapsack)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from razordeploy.errors import RecipeError

_CELLS = 50_000
"""Steps that the budget is cut into: costs are rounded up to whole steps, so that the budget always holds."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one bit width of one layer costs and harms."""

    bits: int
    cost: float
    """In the budget's unit."""
    harm: float
    """Not negative; harms of layers are added up."""


def allocate(layers: Sequence[Sequence[Choice]], budget: float) -> list[Choice]:
    """Pick one choice per layer with the least sum of harms whose sum of costs is at most ``budget``.

    Dynamic programming over the frontier of (cost, harm) pairs, which is exact but for the rounding of costs up to
    1/50000 of the budget.

    Raises:
        RecipeError: the cheapest choices together cost more than the budget.
    """
    least = sum(min(c.cost for c in choices) for choices in layers)
    if least > budget:
        raise RecipeError(
            f"the mixed-precision budget of {budget:.6g} cannot be met: the fewest bits everywhere cost {least:.6g}",
            hint="raise the budget, or allow fewer bits",
        )
    step = budget / _CELLS if budget > 0 else 1.0
    frontier: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]
    for choices in layers:
        grown = [
            (cost + _cells(c.cost, step), harm + c.harm, (*picked, i))
            for cost, harm, picked in frontier
            for i, c in enumerate(choices)
        ]
        frontier = _best([entry for entry in grown if entry[0] <= _CELLS])
        if not frontier:
            # Rounding up has used up the budget, which holds: take the cheapest everywhere.
            return [min(choices, key=lambda c: c.cost) for choices in layers]
    picked = min(frontier, key=lambda entry: entry[1])[2]
    return [choices[i] for choices, i in zip(layers, picked, strict=True)]


def _cells(cost: float, step: float) -> int:
    return -int(-cost // step)


def _best(
    entries: list[tuple[int, float, tuple[int, ...]]],
) -> list[tuple[int, float, tuple[int, ...]]]:
    """Those that no other one beats in both cost and harm, by rising cost."""
    found: list[tuple[int, float, tuple[int, ...]]] = []
    for entry in sorted(entries, key=lambda e: (e[0], e[1])):
        if not found or entry[1] < found[-1][1]:
            found.append(entry)
    return found
