from __future__ import annotations

import importlib.util
import random
import statistics
import sys
from pathlib import Path

import pytest

from razordeploy.compress.nas.search.evolution import EvolutionSearch
from razordeploy.compress.nas.search.greedy import GreedySearch
from razordeploy.compress.nas.search.limits import Bounded, Limits
from razordeploy.compress.nas.search.random_search import RandomSearch
from razordeploy.compress.nas.search.sampler import GreedySampler
from razordeploy.compress.nas.search.scored import Scored, best_of, pareto_front
from razordeploy.compress.nas.search.space import SearchSpace
from razordeploy.errors import ModelError, UsageError

BENCH = Path(__file__).resolve().parents[4] / "tools" / "bench" / "search_landscape.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("search_landscape", BENCH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["search_landscape"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["search_landscape"]


def test_evolution_beats_random_and_comes_close_to_the_known_optimum(bench):
    # Four of the thirty seeds of the tool, which also refuses repeated and too costly candidates.
    found = bench.compare(4, 1000)
    assert statistics.mean(found["evolution"]) >= 0.96
    assert max(found["evolution"]) <= 1.0
    assert all(a > b for a, b in zip(found["evolution"], found["random"], strict=True))


def test_the_landscapes_optimum_is_that_of_enumeration(bench):
    landscape = bench.Landscape(3, layers=6, ops=3)
    every = [landscape.space.decode(_digits(i, 3, 6), "normal") for i in range(3**6)]
    best = max(landscape.score(one) for one in every if landscape.bounded.allows(one))
    assert landscape.optimum() == pytest.approx(best)


def _digits(number, base, count):
    return [number // base**i % base for i in range(count)]


def _bounded(high=None, low=0.0, groups=5, choices=(1, 2, 4)):
    space = SearchSpace({f"g{i}": tuple(choices) for i in range(groups)})
    limits = Limits({} if high is None else {"macs": (low, high)})
    return Bounded(space, lambda subnet: {"macs": float(sum(subnet.values()))}, limits)


def _run(searcher, score):
    seen = []
    while batch := searcher.ask():
        results = [Scored(subnet=one, score=score(one)) for one in batch]
        searcher.tell(results)
        seen += results
    return seen


def test_a_small_space_is_searched_once_and_then_the_search_ends():
    bounded = _bounded(groups=3)
    for searcher in (EvolutionSearch(bounded, max_epochs=50), RandomSearch(bounded, max_candidates=1000)):
        seen = _run(searcher, lambda subnet: sum(subnet.values()))
        assert len(seen) == len({one.key for one in seen}) == bounded.space.size
        assert best_of(seen, 1)[0].subnet == {"g0": 4, "g1": 4, "g2": 4}


def test_the_same_seed_asks_for_the_same_and_failures_are_no_parents():
    def failing(subnet):
        return None if subnet["g0"] == 4 else float(sum(subnet.values()))

    runs = [
        _run(
            EvolutionSearch(_bounded(), seed=7, max_epochs=4, num_candidates=12, num_mutation=6, num_crossover=6),
            failing,
        )
        for _ in range(2)
    ]
    assert [one.key for one in runs[0]] == [one.key for one in runs[1]]
    search = EvolutionSearch(_bounded(), seed=7, max_epochs=4, num_candidates=12, num_mutation=6, num_crossover=6)
    _run(search, failing)
    assert len({one.key for one in search.top}) == len(search.top) == 10
    assert all(one.subnet["g0"] != 4 for one in search.top)


def test_given_candidates_come_first_where_they_keep_to_the_limits():
    given = [dict.fromkeys([f"g{i}" for i in range(5)], value) for value in (1, 4)]
    first = EvolutionSearch(_bounded(high=10.0), init_candidates=given).ask()
    assert first[0] == given[0]
    assert given[1] not in first


@pytest.mark.parametrize(("low", "high"), [(5.0, 5.5), (19.5, 20.0), (6.0, 6.0)])
def test_narrow_limits_are_found(low, high):
    bounded = _bounded(high, low)
    for _ in range(5):
        assert low <= bounded.costs(bounded.sample(random.Random(0)))["macs"] <= high


def test_limits_that_nothing_keeps_to_say_what_is_reached():
    with pytest.raises(ModelError, match=r"no subnet has macs in \[1, 3\]: this space reaches macs \[5, 20\]"):
        _bounded(3.0, 1.0).check_reachable(random.Random(0))
    # Both bounds lie within reach, but nothing is between them.
    with pytest.raises(ModelError, match=r"no subnet was found with macs in \[5.1, 5.9\]: this space reaches macs"):
        _bounded(5.9, 5.1).check_reachable(random.Random(0))
    with pytest.raises(ModelError, match="'latency', which is not measured; measured: macs"):
        Bounded(_bounded().space, _bounded().costs, Limits({"latency": (0, 1)})).check_reachable(random.Random(0))
    _bounded(6.0, 5.0).check_reachable(random.Random(0))


def test_greedy_search_shrinks_what_costs_least():
    # Channels of g0 are worth nothing, so that they go first; g1 is worth the most.
    worth = {"g0": 0.0, "g1": 5.0, "g2": 1.0}
    search = GreedySearch(_bounded(groups=3), targets=[9.0, 5.0])
    seen = _run(search, lambda subnet: sum(worth[name] * value for name, value in subnet.items()))
    assert seen[0].subnet == {"g0": 4, "g1": 4, "g2": 4}
    assert search.found[9.0].subnet == {"g0": 1, "g1": 4, "g2": 4}
    assert search.found[5.0].subnet == {"g0": 1, "g1": 2, "g2": 1}
    assert len(seen) == len({one.key for one in seen})
    with pytest.raises(ModelError, match="at most 2: the smallest has 3"):
        GreedySearch(_bounded(groups=3), targets=[9.0, 2.0])
    with pytest.raises(UsageError, match="at least one target"):
        GreedySearch(_bounded(groups=3), targets=[])


def test_greedy_search_goes_on_where_candidates_fail():
    search = GreedySearch(_bounded(groups=2), targets=[3.0])
    _run(search, lambda subnet: None if subnet["g0"] == 2 else float(sum(subnet.values())))
    assert search.found[3.0].subnet in ({"g0": 1, "g1": 2}, {"g0": 2, "g1": 1}, {"g0": 1, "g1": 1})


def test_the_greedy_sampler_turns_from_random_paths_to_good_ones():
    sampler = GreedySampler(
        _bounded(), num_samples=20, top_k=3, pool_size=4, schedule_start=10, schedule_end=20, max_prob=1.0
    )
    assert sampler.probability(5) == 0.0
    assert sampler.probability(15) == pytest.approx(0.5)
    assert sampler.probability(99) == 1.0
    for _ in range(3):
        sampler.refresh(lambda paths: [float(sum(path.values())) for path in paths])
    assert len(sampler.pool) == 4
    good = [one.subnet for one in sampler.pool]
    assert all(sampler.sample(100) in good for _ in range(20))
    assert any(sampler.sample(0) not in good for _ in range(20))


@pytest.mark.parametrize("schedule", ["linear", "exp", "cosine"])
def test_schedules_rise_from_start_to_end(schedule):
    sampler = GreedySampler(_bounded(), prob_schedule=schedule, schedule_end=100, init_prob=0.1, max_prob=0.8)
    values = [sampler.probability(step) for step in range(101)]
    assert values == sorted(values)
    assert (values[0], values[-1]) == pytest.approx((0.1, 0.8))


def test_pareto_front_and_best():
    points = [(1.0, 50.0), (2.0, 60.0), (2.0, 55.0), (3.0, 58.0), (4.0, 70.0), (5.0, None), (6.0, float("nan"))]
    scored = [Scored(subnet={"a": i}, score=score, costs={"macs": cost}) for i, (cost, score) in enumerate(points)]
    assert [one.subnet["a"] for one in pareto_front(scored, "macs")] == [0, 1, 4]
    assert [one.subnet["a"] for one in best_of([*scored, *scored], 3)] == [4, 1, 3]


def test_spaces_encode_and_check():
    space = SearchSpace({"op": ("a", "b", "c"), "shape": ((8, 8), (16, 16))})
    subnet = space.check({"shape": [16, 16], "op": "b"})
    assert subnet == {"op": "b", "shape": (16, 16)}
    assert space.encode(subnet) == [0, 1, 0, 0, 1]
    assert space.encode(subnet, "normal") == [1, 1]
    for encoding in ("onehot", "normal"):
        assert space.decode(space.encode(subnet, encoding), encoding) == subnet
    with pytest.raises(ModelError, match="expected one of .* got 'd'"):
        space.check({"op": "d", "shape": (8, 8)})
    with pytest.raises(ModelError, match="no choice for the group 'shape'"):
        space.check({"op": "a"})
    with pytest.raises(ModelError, match="did you mean 'shape'"):
        space.check({"op": "a", "shapes": (8, 8)})


@pytest.mark.parametrize("kind", [EvolutionSearch, RandomSearch])
def test_wrong_arguments(kind):
    key = "top_k" if kind is EvolutionSearch else "batch"
    with pytest.raises(UsageError, match=f"expected {key} of at least 1, got 0"):
        kind(_bounded(), **{key: 0})
