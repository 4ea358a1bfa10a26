"""What each searcher asks for: reproducible, inside the bounds, and the same after a break."""

from __future__ import annotations

import math

import pytest

from razordeploy.errors import RecipeError
from razordeploy.hpo.searchers import Searcher, trial_seed
from razordeploy.hpo.storage import open_study

LOG = {"x": {"type": "Real", "low": 1e-4, "high": 1.0, "log": True}}


def _asked(task, folder, count, breaks=()):
    """Values of ``count`` trials; at every number in ``breaks`` the study is opened anew."""
    folder.mkdir(exist_ok=True)
    study, found = None, []
    for number in range(count):
        if study is None or number in breaks:
            study, searcher = open_study(folder, ["maximise"], None, writing=True), Searcher(task)
        _, values = searcher.ask(study, number)
        found.append(values)
        study.tell(number, -((math.log10(values["x"]) + 2) ** 2))
    return found


@pytest.mark.parametrize("name", ["Random", "TPE", "Evolution", "Skopt"])
def test_a_break_changes_nothing(make, tmp_path, name):
    task = make(search_args=LOG, searcher=name, scheduler={"stop_criterion": {"max_tries": 99}})
    whole = _asked(task, tmp_path / "a", 12)
    broken = _asked(task, tmp_path / "b", 12, breaks=(3, 11))
    assert whole == broken
    assert all(1e-4 <= v["x"] <= 1 for v in whole)
    assert len({v["x"] for v in whole}) > 9


def test_random_is_uniform_in_the_logarithm(make, tmp_path):
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    task = make(search_args=LOG, searcher="Random", scheduler={"stop_criterion": {"max_tries": 99}})
    found = [(math.log10(v["x"]) + 4) / 4 for v in _asked(task, tmp_path / "a", 80)]
    assert stats.kstest(found, "uniform").pvalue > 0.01
    other = make(search_args=LOG, searcher="Random", seed=1, scheduler={"stop_criterion": {"max_tries": 99}})
    assert _asked(other, tmp_path / "b", 2) != _asked(task, tmp_path / "c", 2)


def test_grid_and_batch_take_their_lists_in_order(make, tmp_path):
    grid = make(search_args={"x": [0.1, 0.3, 0.2]}, searcher="Grid", scheduler={})
    assert Searcher(grid).count == 3
    assert [v["x"] for v in _asked(grid, tmp_path / "a", 3, breaks=(2,))] == [0.1, 0.3, 0.2]
    configs = [{"x": 0.5}, {"x": 0.5}, {"x": 0.25}]
    batch = make(search_args=LOG, searcher={"type": "Batch", "configs": configs}, scheduler={})
    assert _asked(batch, tmp_path / "b", 3, breaks=(1,)) == configs


def test_batch_needs_its_list(make):
    with pytest.raises(RecipeError, match="Batch needs a list of configs"):
        Searcher(make(searcher="Batch", scheduler={}))


def test_seeds_differ_and_stay():
    assert trial_seed(0, 1) == trial_seed(0, 1)
    assert len({trial_seed(seed, number) for seed in range(10) for number in range(10)}) == 100


def test_what_has_been_learnt_is_used(make):
    """At an equal budget, on a bowl of two arguments: the full comparison is in tools/bench/hpo.py."""
    optuna = pytest.importorskip("optuna", reason="needs optuna")
    args = {"x": LOG["x"], "n": {"type": "Int", "low": 1, "high": 40}}
    best = {}
    for name in ("Random", "Evolution", "TPE"):
        found = []
        for seed in range(6):
            task = make(
                "{x} {n}", search_args=args, searcher=name, seed=seed, scheduler={"stop_criterion": {"max_tries": 60}}
            )
            study, searcher = optuna.create_study(direction="maximize"), Searcher(task)
            for number in range(60):
                _, v = searcher.ask(study, number)
                study.tell(number, -((math.log10(v["x"]) + 2) ** 2) - ((v["n"] - 30) / 10) ** 2)
            found.append(study.best_value)
        best[name] = found
    for name in ("Evolution", "TPE"):
        assert sum(a > b for a, b in zip(best[name], best["Random"], strict=True)) >= 5, (name, best)
