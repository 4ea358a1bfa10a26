"""``razordeploy hpo``: from the starter to the page, and what is wrong in one line."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from razordeploy.workdir import WorkDir

pytest.importorskip("optuna", reason="Optuna is not installed")

TASK = """
task: {template: "echo '{{\\"score\\": {x}}}'"}
search_args: {x: {type: Real, low: 0, high: 1}}
reward_attribute: score
searcher: Random
scheduler: {stop_criterion: {max_tries: 3}}
"""


def _write(folder, text=TASK):
    (folder / "hpo.yaml").write_text(text)


def test_init_run_show_resume(cli, tmp_path):
    done = cli("hpo", "init")
    assert done.code == 0
    assert "next: razordeploy hpo run hpo.yaml" in done.out
    assert "exists" in cli("hpo", "init").error
    done = cli("hpo", "run", "hpo.yaml", "--set", "scheduler.stop_criterion.max_tries=3", "--parallel", "1")
    assert done.code == 0, done.err
    assert "3 complete" in done.out
    shown = json.loads(cli("hpo", "ctl", "show", "work_dirs/hpo", "--json").out)
    assert shown["status"] == "max_tries"
    assert [t["status"] for t in shown["trials"]] == ["complete"] * 3
    assert shown["best"][0]["values"]["top1"] == max(t["values"]["top1"] for t in shown["trials"])
    assert "Nested" not in (tmp_path / "work_dirs/hpo/study.html").read_text()
    done = cli("hpo", "ctl", "resume", "work_dirs/hpo", "--set", "scheduler.stop_criterion.max_tries=4")
    assert done.code == 0, done.err
    assert "4 complete" in done.out


@pytest.mark.parametrize(
    ("old", "new", "code", "message"),
    [
        ("{x}", "{y}", 2, "task.template has the field {y}, and search_args no 'y'"),
        ("{x}", "1", 2, "search_args has 'x', and task.template no field {x}"),
        ("reward_attribute: score", "reward_attribute: top1", 2, "3 trials ended well and none told the reward 'top1'"),
        ("echo", "no-such-program", 2, "there is no such command on the PATH"),
        ("searcher: Random", "searcher: Randon", 2, "unknown searcher 'Randon'"),
        ("searcher: Random", "executor: rey", 2, "unknown executor 'rey' in 'executor'; did you mean 'ray'?"),
        ("echo", "false", 1, "none of 3 trials ran to its end; the first: exit code 1"),
    ],
)
def test_bad_input(cli, tmp_path, old, new, code, message):
    _write(tmp_path, TASK.replace(old, new, 1))
    done = cli("hpo", "run", "hpo.yaml", "--work-dir", "w")
    assert done.code == code, done.err
    assert message in done.error


@pytest.mark.parametrize(
    ("package", "extra", "change"),
    [("optuna", "hpo", ""), ("ray", "ray", "executor: ray"), ("submitit", "slurm", "executor: slurm")],
)
def test_what_is_not_installed_is_a_pip_line(cli, tmp_path, package, extra, change):
    _write(tmp_path, TASK + change)
    hide = f"import razordeploy.lazy as z; real = z.available; z.available = lambda n: n != {package!r} and real(n)"
    done = cli("hpo", "run", "hpo.yaml", "--work-dir", "w", before=hide)
    assert done.code == 3, done.err
    assert f"pip install 'razordeploy[{extra}]'" in done.error


def test_two_runs_in_one_work_dir(cli, tmp_path):
    _write(tmp_path)
    with WorkDir(tmp_path / "w"):
        done = cli("hpo", "run", "hpo.yaml", "--work-dir", "w")
    assert done.code == 5
    assert "is in use by process" in done.error


def test_show_and_resume_need_a_study(cli, tmp_path):
    for verb in ("show", "resume", "stop"):
        done = cli("hpo", "ctl", verb, "nowhere")
        assert done.code == 2
        assert "expected a study at nowhere" in done.error
    assert "did you mean 'show'" in cli("hpo", "ctl", "shwo").error


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_says_how_to_go_on(cli, tmp_path, number, code):
    (tmp_path / "hpo.yaml").write_text(
        "task: {template: 'sleep {x}'}\nsearch_args: {x: [600]}\nreward_attribute: score\n"
        "scheduler: {stop_criterion: {max_tries: 1}}\n"
    )

    def interrupt(pid, err):
        end = time.monotonic() + 60
        while not (tmp_path / "w" / "trials" / "00000" / "log.txt").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        os.kill(pid, number)

    done = cli("hpo", "run", "hpo.yaml", "--work-dir", "w", started=interrupt)
    assert done.code == code, done.err
    assert "interrupted; resume with: razordeploy hpo ctl resume w" in done.err
    shown = json.loads(cli("hpo", "ctl", "show", "w", "--json").out)
    assert [t["status"] for t in shown["trials"]] == ["lost"]


def test_doctor_says_how_to_get_the_rest(cli):
    hide = "import razordeploy.cli.inspect as i; real = i.available; i.available = lambda n: n != 'ray' and real(n)"
    said = cli("doctor", before=hide).out.splitlines()
    assert "ray: pip install 'razordeploy[ray]'" in said
    assert "hpo: installed" in said
