"""The search of a Python function, and of one of our own verbs, measured on its engine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from razordeploy.errors import RecipeError
from razordeploy.hpo.api import Categorical, Int, Real, StopCriterion, optimize, search_verb
from tests.cli.conftest import write_tiny

sys.path.append(str(Path(__file__).parent))
import objectives  # noqa: E402  # workers import it by this name

X = {"x": Real(low=0.0, high=1.0)}


def test_a_function_is_searched_in_processes_and_inline(tmp_path):
    stop = StopCriterion(max_tries=6)
    found = [
        optimize(objectives.bowl, X, work_dir=tmp_path / kind, searcher="Random", stop=stop, executor=kind)
        for kind in ("local", "inline")
    ]
    assert [t.values for t in found[0].trials] == [t.values for t in found[1].trials]
    assert found[0].best[0].values["value"] == max(t.values["value"] for t in found[0].trials)


def test_several_rewards(tmp_path):
    study = optimize(
        objectives.two,
        {"x": Categorical(values=(-1, 0, 1))},
        work_dir=tmp_path / "w",
        rewards={"good": "maximise", "cost": "minimise"},
        searcher="Grid",
        executor="inline",
    )
    assert sorted(t.params["x"] for t in study.best) == [0, 1]


def test_reports_reach_the_assessor(tmp_path):
    study = optimize(
        objectives.growing,
        {"x": [0.9, 0.95, 0.1]},
        work_dir=tmp_path / "w",
        searcher="Grid",
        assessor="MedianStop",
        assessor_options={"min_trials": 2},
    )
    assert [t.status for t in study.trials] == ["complete", "complete", "stopped"]
    assert study.trials[2].steps < 39


def test_what_a_function_raises_is_a_failed_trial(tmp_path):
    study = optimize(
        objectives.failing, {"x": Int(low=1, high=3)}, work_dir=tmp_path / "w", searcher="Grid", executor="inline"
    )
    assert [t.status for t in study.trials] == ["failed", "failed", "complete"]
    assert [t.reason for t in study.trials] == ["value is nan", "RuntimeError: out of luck", None]


def test_a_recipe_is_searched_for_its_engine(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    recipe = write_tiny(tmp_path)
    study = search_verb(
        "ptq",
        str(recipe),
        {"calibration.num_samples": [16, 64]},
        work_dir=tmp_path / "w",
        rewards={
            "backends.onnxruntime.metrics.engine.top1": "maximise",
            "backends.onnxruntime.size_bytes.engine": "minimise",
        },
        options=["--backend", "onnxruntime", "--benchmark-seconds", "0"],
        searcher="Grid",
        env={"PYTHONPATH": f"{Path(__file__).resolve().parents[2]}:{tmp_path}"},
    )
    assert [t.status for t in study.trials] == ["complete", "complete"], study.trials
    assert [t.params for t in study.trials] == [{"calibration.num_samples": 16}, {"calibration.num_samples": 64}]
    for trial in study.trials:
        assert 0 <= trial.values["backends.onnxruntime.metrics.engine.top1"] <= 100
        assert trial.values["backends.onnxruntime.size_bytes.engine"] > 1000


def test_what_is_wrong(tmp_path):
    with pytest.raises(RecipeError, match="unknown 'Tpe'"):
        optimize(objectives.bowl, X, work_dir=tmp_path, searcher="Tpe")
    with pytest.raises(RecipeError, match="would never end"):
        optimize(objectives.bowl, X, work_dir=tmp_path)
    with pytest.raises(RecipeError, match="'benchmark' writes no report"):
        search_verb("benchmark", "r.py", {"x": [1]}, work_dir=tmp_path, rewards={"a": "maximise"})
