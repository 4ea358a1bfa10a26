"""The knapsack against trying everything."""

from __future__ import annotations

import itertools
import random

import pytest

from razordeploy.errors import RecipeError
from razordeploy.quantization.mixed.allocate import Choice, allocate


def problem(seed: int, layers: int = 5) -> list[list[Choice]]:
    draw = random.Random(seed)
    found = []
    for _ in range(layers):
        size, pain = draw.randint(10, 900), draw.random() * 10
        found.append([Choice(bits=b, cost=size * b, harm=pain / 4**b * draw.uniform(0.5, 1.5)) for b in (2, 4, 8)])
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_it_is_as_good_as_trying_everything(seed, share):
    layers = problem(seed)
    low, high = (sum(pick(c.cost for c in choices) for choices in layers) for pick in (min, max))
    budget = low + share * (high - low)
    chosen = allocate(layers, budget)
    assert sum(c.cost for c in chosen) <= budget
    affordable = (p for p in itertools.product(*layers) if sum(c.cost for c in p) <= budget * (1 - 1e-3))
    assert sum(c.harm for c in chosen) <= min(sum(c.harm for c in p) for p in affordable) + 1e-12


def test_many_layers_are_no_matter():
    layers = problem(0, layers=60)
    chosen = allocate(layers, 0.5 * sum(choices[-1].cost for choices in layers))
    assert len({c.bits for c in chosen}) > 1


def test_the_least_that_there_is_fits_exactly():
    layers = problem(1)
    least = sum(choices[0].cost for choices in layers)
    assert [c.bits for c in allocate(layers, least)] == [2] * 5
    with pytest.raises(RecipeError, match="cannot be met: the fewest bits everywhere cost"):
        allocate(layers, least - 1)
