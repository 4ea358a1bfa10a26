"""Studies of real commands: rewards, ends, failures, and what survives when things die."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from razordeploy.errors import RecipeError, StorageError, UsageError
from razordeploy.hpo.records import read_study
from razordeploy.hpo.run import ask_to_stop, resumable, run_study
from razordeploy.hpo.trial import STOP, TrialSpec, asked_to_stop, prepare_folder, run_trial
from razordeploy.workdir import WorkDir
from tests.hpo.conftest import history, journal_ends

ROOT = Path(__file__).resolve().parents[2]


def stops(**criteria):
    return {"parallel_size": 2, "stop_criterion": criteria}


def test_a_study_runs_and_says_what_is_best(make, tmp_path):
    told = []
    study = run_study(make("x={x} steps=3"), tmp_path / "w", listener=lambda number, result: told.append(number))
    assert [t.status for t in study.trials] == ["complete"] * 4
    assert sorted(told) == [0, 1, 2, 3]
    assert study.status == "max_tries"
    for trial in study.trials:
        assert trial.values["score"] == pytest.approx(1 - (trial.params["x"] - 0.3) ** 2)
        assert trial.steps == 3
    best = max(study.trials, key=lambda t: t.values["score"])
    assert study.best == [best]
    assert json.loads((tmp_path / "w" / "best.json").read_text())["best"][0]["trial"] == best.number
    page = (tmp_path / "w" / "study.html").read_text()
    assert "Parallel coordinates" in page
    assert "4 complete" in page
    assert "max_tries" in page
    assert "a line of log" in (tmp_path / "w" / "trials" / "00000" / "log.txt").read_text()


def test_one_seed_gives_one_history_and_running_again_runs_nothing(make, tmp_path):
    one = {"parallel_size": 1, "stop_criterion": {"max_tries": 3}}
    first = run_study(make(scheduler=one), tmp_path / "a")
    second = run_study(make(scheduler=one), tmp_path / "b")
    assert history(first) == history(second)
    again = run_study(make(scheduler=one), tmp_path / "a")
    assert [t.seconds for t in again.trials] == [t.seconds for t in first.trials]
    more = run_study(make(scheduler={**one, "stop_criterion": {"max_tries": 5}}), tmp_path / "a")
    assert history(more)[:3] == history(first)
    assert len(more.trials) == 5
    with pytest.raises(UsageError, match="holds a study of another task"):
        run_study(make("x={x} steps=2"), tmp_path / "a")


def test_failures_are_kept_and_the_study_goes_on(make, tmp_path):
    args = {"x": [0.1], "crash": ["yes", "no"], "hang": ["yes", "no"]}
    task = make(
        "x={x} crash={crash} hang={hang}",
        search_args=args,
        searcher="Grid",
        scheduler={"parallel_size": 2, "stop_criterion": {"time_limits_per_job": 0.7}},
        generate_log=False,
    )
    study = run_study(task, tmp_path / "w")
    found = {(t.params["crash"], t.params["hang"]): t for t in study.trials}
    assert study.status == "exhausted"
    assert found["no", "no"].status == "complete"
    assert found["no", "yes"].status == "timeout"
    assert "longer than 0.7 s" in found["no", "yes"].reason
    for hang in ("yes", "no"):
        assert found["yes", hang].status == "failed"
        assert found["yes", hang].reason == "exit code 1: RuntimeError: out of luck"
    kept = {int(path.parent.name) for path in (tmp_path / "w").rglob("log.txt")}
    assert kept == {t.number for t in study.trials if t.status == "failed"}


def test_the_reward_that_is_reached_ends_the_study(make, tmp_path):
    # One after another: how many start before the reward is seen would depend on the machine.
    scheduler = {**stops(max_reward=0.999), "parallel_size": 1}
    task = make(search_args={"x": [0.9, 0.3, 0.8, 0.7]}, searcher="Grid", scheduler=scheduler)
    study = run_study(task, tmp_path / "w")
    assert study.status == "max_reward"
    assert study.best[0].params["x"] == 0.3
    assert len(study.trials) < 4
    assert not journal_ends(tmp_path / "w").keys() - {t.number for t in study.trials}


def test_time_ends_the_study_and_what_runs(make, tmp_path):
    started = time.monotonic()
    study = run_study(make("x={x} hang=yes", scheduler=stops(time_limits=0.6)), tmp_path / "w")
    assert time.monotonic() - started < 20
    assert study.status == "time_limits"
    assert {t.status for t in study.trials} == {"cancelled"}


def test_several_rewards_have_a_front(make, tmp_path):
    task = make(
        search_args={"x": [0.0, 0.2, 0.3, 0.6]},
        searcher="Grid",
        reward_attribute=["score", "cost"],
        mode=["maximise", "minimise"],
        scheduler={"parallel_size": 1},
    )
    study = run_study(task, tmp_path / "w")
    assert sorted(t.params["x"] for t in study.best) == [0.0, 0.2, 0.3]
    assert "cost against score" in (tmp_path / "w" / "study.html").read_text()


def test_an_assessor_stops_what_is_hopeless(make, tmp_path):
    task = make(
        "x={x} steps=30 nap=0.05",
        search_args={"x": [0.3, 3.0]},
        searcher="Grid",
        assessor={"type": "MedianStop", "start_step": 2, "min_trials": 1},
        scheduler={"parallel_size": 1},
    )
    study = run_study(task, tmp_path / "w")
    good, bad = study.trials
    assert (good.status, good.steps) == ("complete", 30)
    assert bad.status == "stopped"
    assert bad.steps < 30
    assert "median of the 1 completed trials" in bad.reason


def test_a_result_file_and_followed_files(make, tmp_path):
    (tmp_path / "write.py").write_text(
        "import json, os, sys, pathlib\n"
        "folder = pathlib.Path(os.environ['RAZORDEPLOY_TRIAL_DIR'])\n"
        "given = json.loads(pathlib.Path(os.environ['RAZORDEPLOY_TRIAL']).read_text())\n"
        "assert given['params'] == {'x': float(sys.argv[1])}, given\n"
        "(folder / 'vis').mkdir()\n"
        "(folder / 'vis' / 'scalars.json').write_text('{\"epoch\": 4, \"m\": {\"top1\": 1.5}}\\nnot json\\n')\n"
        "(folder / 'report.json').write_text(json.dumps({'m': {'top1': 2.5}}))\n"
    )
    task = make(
        task={
            "template": f"{{python}} -S {tmp_path / 'write.py'} {{x}}",
            "result": "{trial_dir}/report.json",
            "metrics": "{trial_dir}/v*/*.json",
        },
        reward_attribute="m.top1",
        scheduler=stops(max_tries=1),
    )
    study = run_study(task, tmp_path / "w")
    assert study.trials[0].values == {"m.top1": 2.5}
    lines = (tmp_path / "w" / "trials" / "00000" / "metrics.jsonl").read_text().splitlines()
    assert [(json.loads(line)["step"], json.loads(line)["values"]["m.top1"]) for line in lines] == [(4, 1.5), (2, 2.5)]


def test_a_reward_that_never_appears(make, tmp_path):
    with pytest.raises(RecipeError, match=r"3 trials ended well and none told the reward 'score'.*log.txt"):
        run_study(make("x={x} silent=yes", scheduler={"stop_criterion": {"max_tries": 50}}), tmp_path / "w")
    assert len(read_study(tmp_path / "w").trials) == 3


def test_a_command_that_is_not_there(make, tmp_path):
    with pytest.raises(UsageError, match="starts with 'no-such-program', and there is no such command on the PATH"):
        run_study(make(task={"template": "no-such-program {x}"}), tmp_path / "w")


def test_a_live_run_holds_the_folder(make, tmp_path):
    with WorkDir(tmp_path / "w"), pytest.raises(StorageError, match="is in use by process"):
        run_study(make(), tmp_path / "w")


def test_a_journal_that_is_none(make, tmp_path):
    run_study(make(), tmp_path / "w")
    (tmp_path / "w" / "study.journal").write_text("{}\nnot json\nnor this\n")
    with pytest.raises(StorageError, match=r"study.journal cannot be read"):
        run_study(make(), tmp_path / "w")


def test_a_database_that_is_locked_meanwhile(make, tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}?timeout=0.1"
    task = dataclasses.replace(make(scheduler=stops(max_tries=4)), storage=url)
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as other:

        def lock(number, result):
            if number == 1:
                other.execute("BEGIN EXCLUSIVE")

        with pytest.raises(StorageError, match=r"cannot reach the study's database: .*is locked.*run the same command"):
            run_study(task, tmp_path / "w", listener=lock)
        with pytest.raises(StorageError, match=r"cannot reach the study's database: .*is locked"):
            run_study(task, tmp_path / "w")
        other.execute("ROLLBACK")
    kept = {trial.number: trial.values for trial in read_study(tmp_path / "w").complete}
    assert {0, 1} <= set(kept)
    again = {trial.number: trial.values for trial in run_study(task, tmp_path / "w").complete}
    assert sorted(again) == [0, 1, 2, 3]
    assert kept.items() <= again.items()


def test_ctl_stops_and_the_study_goes_on(make, tmp_path):
    task = make("x={x} nap=0.3", scheduler=stops(max_tries=6))
    folder = tmp_path / "w"

    def ask(number, result):
        if number == 0:
            ask_to_stop(folder, now=False)

    study = run_study(task, folder, listener=ask)
    assert study.status == "asked"
    assert 1 <= len(study.trials) < 6
    assert {t.status for t in study.trials} == {"complete"}
    with pytest.raises(UsageError, match="no run to stop"):
        ask_to_stop(folder, now=False)
    study = run_study(resumable(folder), folder)
    assert [t.status for t in study.trials] == ["complete"] * 6


def test_a_killed_worker_costs_its_trial(make, tmp_path):
    args = {"x": [0.1, 0.2, 0.3]}
    (tmp_path / "kill.py").write_text(
        "import os, sys, json\n"
        "if sys.argv[1] == '0.2':\n    os.kill(os.getppid(), 9)\n    import time; time.sleep(60)\n"
        "print(json.dumps({'score': 1}))\n"
    )
    task = make(
        task={"template": f"{{python}} -S {tmp_path / 'kill.py'} {{x}}"},
        search_args=args,
        searcher="Grid",
        scheduler={"parallel_size": 1},
    )
    study = run_study(task, tmp_path / "w")
    assert [t.status for t in study.trials] == ["complete", "failed", "complete"]
    assert "SIGKILL" in study.trials[1].reason


def test_a_killed_study_loses_nothing_and_counts_nothing_twice(objective, tmp_path):
    count = tmp_path / "count"
    (tmp_path / "hpo.yaml").write_text(
        f"task: {{template: '{{python}} -S {objective} x={{x}} nap=0.05 count={count}'}}\n"
        "search_args: {x: {type: Real, low: 0, high: 1}}\nreward_attribute: score\nsearcher: Random\n"
        "scheduler: {parallel_size: 2, stop_criterion: {max_tries: 12}}\n"
    )
    folder = tmp_path / "w"
    command = [sys.executable, "-m", "razordeploy.cli.main", "hpo", "run", "hpo.yaml", "--work-dir", "w"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended: dict[int, str] = {}
    for target in (2, 7):
        parent = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while len(list(folder.glob("trials/*/result.json"))) < target:
            assert time.monotonic() < end
            assert parent.poll() is None
            time.sleep(0.01)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        before = {int(p.parent.name): p.read_text() for p in folder.glob("trials/*/result.json")}
        assert ended.items() <= before.items()
        ended = before
        assert read_study(folder).status == "interrupted"
        with (folder / "study.journal").open("a") as file:
            file.write('{"op_code": 5, "worker_id"')  # killed in the middle of a line
    study = run_study(resumable(folder), folder)
    assert [t.status for t in study.trials] == ["complete"] * 12
    assert ended.items() <= {int(p.parent.name): p.read_text() for p in folder.glob("trials/*/result.json")}.items()
    assert set(journal_ends(folder).values()) == {1}
    assert len(journal_ends(folder)) == 12
    ran: dict[str, list[float]] = {}
    for line in count.read_text().splitlines():
        trial, x = json.loads(line)
        ran.setdefault(trial, []).append(x)
    assert len(ran) == 12
    assert all(len(set(values)) == 1 for values in ran.values())  # what runs again runs with the same values


def _spec(tmp_path, words, **changes):
    spec = TrialSpec(
        number=0, folder=str(tmp_path / "t"), rewards=("score",), seed=0, values={}, words=tuple(words), **changes
    )
    prepare_folder(spec)
    return spec


def test_a_trial_that_leaves_a_daemon_behind_ends(tmp_path):
    daemon = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'])"
    script = f"import subprocess, sys; print('{{\"score\": 1}}', flush=True); {daemon}"
    started = time.monotonic()
    result = run_trial(_spec(tmp_path, [sys.executable, "-S", "-c", script]))
    assert time.monotonic() - started < 10
    assert (result.status, result.values) == ("complete", {"score": 1.0})


@pytest.mark.parametrize("text", ["NaN", "Infinity", "true", '"1"', "null"])
def test_what_is_no_number_is_no_reward(tmp_path, text):
    result = run_trial(_spec(tmp_path, ["echo", f'{{"score": {text}}}']))
    assert result.status == "failed"


def test_a_trial_is_stopped_by_its_file(tmp_path):
    spec = _spec(tmp_path, ["sleep", "60"])
    (tmp_path / "t" / STOP).write_text("stopped not worth it")
    assert asked_to_stop(tmp_path / "t") == ("stopped", "not worth it")
    result = run_trial(spec)
    assert (result.status, result.reason) == ("stopped", "not worth it")
