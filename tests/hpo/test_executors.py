"""A study whose trials are Slurm jobs, and one whose trials run on a Ray cluster."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from razordeploy.hpo.run import run_study

ROOT = Path(__file__).resolve().parents[2]


def test_trials_are_slurm_jobs(make, tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed")
    commands = ROOT / "tests" / "executors" / "slurm_bin"
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path / "slurm"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    task = make(
        "x={x} crash={crash}",
        search_args={"x": [0.3], "crash": ["no", "yes"]},
        searcher="Grid",
        executor={"type": "slurm", "poll_s": 0.05},
        scheduler={"parallel_size": 2},
    )
    study = run_study(task, tmp_path / "w")
    assert [t.status for t in study.trials] == ["complete", "failed"]
    assert study.trials[1].reason == "exit code 1: RuntimeError: out of luck"
    assert (tmp_path / "slurm" / "102.sh").exists()
    assert list((tmp_path / "w" / "jobs").glob("*_submitted.pkl"))


def test_trials_run_on_ray(make, tmp_path):
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        args = {"x": [0.1, 0.3], "hang": ["no", "yes"]}
        scheduler = {"parallel_size": 2, "stop_criterion": {"time_limits_per_job": 1.0}}
        task = make("x={x} hang={hang}", search_args=args, searcher="Grid", executor="ray", scheduler=scheduler)
        study = run_study(task, tmp_path / "w")
    finally:
        ray.shutdown()
    assert [t.status for t in study.trials] == ["complete", "timeout", "complete", "timeout"]
    assert study.best[0].params["x"] == 0.3
