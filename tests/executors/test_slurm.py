"""submitit's own local and debug executors, and Slurm's commands played by scripts."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import executor_tasks as tasks
import pytest

from razordeploy.config.executor import ExecutorConfig
from razordeploy.errors import DataError, TaskTimeout, UsageError, WorkerDied
from razordeploy.executors.build import build_executor

pytest.importorskip("submitit", reason="submitit is not installed")
# submitit's debug jobs never close their log files, and its job scripts are told twice where they are.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
BIN = Path(__file__).resolve().parent / "slurm_bin"
ROOT = BIN.parents[2]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The stand-in's folder, with its commands first on the PATH."""
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path / "slurm"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path / "slurm"


def on(cluster, **options):
    return ExecutorConfig(type="slurm", cluster=cluster, poll_s=0.05, **options)


def test_debug_runs_in_this_process(tmp_path):
    with build_executor(on("debug"), initializer=tasks.load, initargs=(1,), folder=tmp_path) as pool:
        assert pool.submit(tasks.add, 1).result() == (2, os.getpid())


def test_local_runs_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with build_executor(on("local"), initializer=tasks.load, initargs=(1,), folder=tmp_path) as pool:
        assert pool.submit(tasks.add, 1).result()[0] == 2


def test_jobs_of_slurm(slurm, tmp_path):
    options = {"slurm_partition": "short"}
    config = on("slurm", max_parallel=2, cpus=3, memory_gb=2, timeout_s=90, options=options)
    with build_executor(config, folder=tmp_path / "jobs") as pool:
        values = [pool.submit(tasks.inside, str(_folder(tmp_path)), 0.3) for _ in range(3)]
        failed = pool.submit(tasks.fail, "no images")
        assert max(f.result() for f in values) <= 2
        with pytest.raises(DataError, match="no images; give other data"):
            failed.result()
    script = (slurm / "101.sh").read_text()
    asked = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", script))
    assert asked["partition"] == "short"
    assert (asked["cpus-per-task"], asked["mem"], asked["time"]) == ("3", "2GB", "4")


def _folder(parent):
    folder = parent / "inside"
    folder.mkdir(exist_ok=True)
    return folder


def test_a_job_that_is_killed_or_hangs(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 1)
    config = on("slurm", timeout_s=0.5)
    with build_executor(config, folder=tmp_path / "jobs") as pool, pytest.raises(TaskTimeout, match=r"than 0.5 s"):
        pool.submit(tasks.nap, 60).result()
    with build_executor(on("slurm"), folder=tmp_path / "jobs") as pool:
        lost = pool.submit(tasks.nap, 60, str(tmp_path / "mark"))
        end = time.monotonic() + 30
        while not (tmp_path / "mark").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        os.killpg(int((slurm / "102.pid").read_text()), signal.SIGKILL)
        with pytest.raises(WorkerDied, match="job 102 ended before its task did"):
            lost.result()
    assert (slurm / "101.state").read_text().strip() == "CANCELLED"


def test_no_sbatch(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="expected the command 'sbatch' on the PATH"):
        build_executor(on("slurm"), folder=tmp_path)


def test_an_unknown_parameter(slurm, tmp_path):
    with pytest.raises(UsageError, match="slurm_partitoin"):
        build_executor(on("slurm", options={"slurm_partitoin": "short"}), folder=tmp_path)


def test_with_an_initializer_a_job_serves_many_tasks(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 1)
    count = tmp_path / "count"
    config = on("slurm", timeout_s=3.0)
    with build_executor(config, initializer=tasks.load, initargs=(5, str(count)), folder=tmp_path / "jobs") as pool:
        assert [pool.submit(tasks.add, x).result()[0] for x in range(4)] == [5, 6, 7, 8]
        with pytest.raises(DataError, match="no images"):
            pool.submit(tasks.fail, "no images").result()
        assert len(count.read_text().split()) == 1
        with pytest.raises(WorkerDied, match="job 101 ended before its task did"):
            pool.submit(tasks.die).result()
        assert pool.submit(tasks.add, 1).result()[0] == 6
        with pytest.raises(TaskTimeout):
            pool.submit(tasks.nap, 60).result()
        assert pool.submit(tasks.add, 2).result()[0] == 7
    assert len(count.read_text().split()) == 3
    end = time.monotonic() + 20
    while (slurm / "103.state").read_text().strip() != "COMPLETED":
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_initializer_that_fails_fails_its_tasks(slurm, tmp_path):
    with (
        build_executor(
            on("slurm"), initializer=tasks.fail, initargs=("no checkpoint",), folder=tmp_path / "jobs"
        ) as pool,
        pytest.raises(DataError, match="no checkpoint"),
    ):
        pool.submit(tasks.double, 1).result()


def test_a_job_whose_giver_is_gone_ends(tmp_path, monkeypatch):
    from razordeploy.executors import mailbox
    from razordeploy.executors.task import pack

    monkeypatch.setattr(mailbox, "_SILENT_S", 0.3)
    box = mailbox.Mailbox(tmp_path / "box")
    number = box.give("", pack(tasks.double, (4,), {}))
    assert mailbox.serve_mailbox(str(box.folder), [], {}, "", pack(tasks.load, (1,), {})) is None
    assert box.started(number)
    assert box.outcome(number) is not None
