from __future__ import annotations

import random
from collections import Counter

import pytest

from razordeploy.compress.nas.search.latency import fit_latency, subnets_to_measure
from razordeploy.compress.nas.search.space import SearchSpace
from razordeploy.errors import ModelError, UsageError

SPACE = SearchSpace({f"layer{i}": (1, 2, 3) for i in range(8)})
# What layers really take, besides their multiply-accumulates: an odd choice is slow on this engine.
EXTRA = {1: 0.0, 2: 0.03, 3: 0.01}


def _costs(subnet):
    return {"macs": float(sum(value * value for value in subnet.values()))}


def _latency(subnet, rng=None):
    ms = 0.2 + 0.004 * _costs(subnet)["macs"] + sum(EXTRA[value] for value in subnet.values())
    return ms * (1 + (rng.gauss(0, 0.01) if rng else 0))


def test_the_table_predicts_subnets_that_were_not_measured():
    rng = random.Random(0)
    table = fit_latency(SPACE, [(one, _latency(one, rng)) for one in subnets_to_measure(SPACE, 30)], _costs)
    others = [SPACE.sample(rng) for _ in range(100)]
    errors = [abs(table(one, _costs(one)["macs"]) / _latency(one) - 1) for one in others]
    assert 100 * sum(errors) / len(errors) < 3.0
    # The error it reports is that of subnets it has not seen, not of the fit.
    assert 100 * sum(errors) / len(errors) == pytest.approx(table.mape, abs=2.0)


def test_noise_that_nothing_explains_is_reported_as_error():
    rng = random.Random(1)
    noise = [(one, rng.uniform(1.0, 3.0)) for one in subnets_to_measure(SPACE, 24)]
    assert fit_latency(SPACE, noise, _costs).mape > 15.0


def test_every_choice_is_measured_and_no_subnet_twice():
    subnets = subnets_to_measure(SPACE, 26)
    assert len({tuple(one.values()) for one in subnets}) == len(subnets) == 26
    for name in SPACE.groups:
        assert min(Counter(one[name] for one in subnets).values()) >= 8
    assert len(subnets_to_measure(SearchSpace({"a": (1, 2), "b": (1, 2)}), 24)) == 4


def test_too_little_to_fit():
    with pytest.raises(UsageError, match="at least 4 measured subnets"):
        fit_latency(SPACE, [(SPACE.sample(random.Random(0)), 1.0)], _costs)
    with pytest.raises(ModelError, match="too small"):
        subnets_to_measure(SearchSpace({"a": (1, 2)}), 24)
