"""Processes of this machine: results, state, deaths, time limits, resources, and a parent that is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import executor_tasks as tasks
import pytest

from razordeploy.config.executor import ExecutorConfig
from razordeploy.errors import DataError, TaskTimeout, UsageError, WorkerDied
from razordeploy.executors.build import build_executor

HERE = Path(__file__).resolve().parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])}


def local(**options):
    return ExecutorConfig(type="local", **options)


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def _wait(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_state_is_loaded_once_a_worker_and_kept(tmp_path):
    count = tmp_path / "count"
    with build_executor(local(max_parallel=2), initializer=tasks.load, initargs=(10, str(count))) as pool:
        assert pool.max_parallel == 2
        results = [future.result() for future in [pool.submit(tasks.add, x) for x in range(12)]]
    assert [value for value, _ in results] == list(range(10, 22))
    loaded = count.read_text().split()
    assert len(loaded) == len(set(loaded)) <= 2
    assert {str(pid) for _, pid in results} <= set(loaded)
    assert not any(_alive(int(pid)) for pid in loaded)


def test_what_a_task_raises_comes_back_as_it_is():
    with build_executor(local()) as pool:
        with pytest.raises(DataError, match=r"no images; give other data") as caught:
            pool.submit(tasks.fail, "no images").result()
        assert caught.value.hint == "give other data"
        assert pool.submit(tasks.double, 2).result() == 4


def test_an_initializer_that_fails_fails_its_tasks():
    with (
        build_executor(local(), initializer=tasks.fail, initargs=("no checkpoint",)) as pool,
        pytest.raises(DataError, match="no checkpoint"),
    ):
        pool.submit(tasks.double, 1).result()


def test_what_cannot_be_sent_is_refused_at_once():
    with build_executor(local()) as pool:
        with pytest.raises(UsageError, match="cannot be sent to another process"):
            pool.submit(lambda: 1)
        with pytest.raises(UsageError, match="that cannot be sent back"):
            pool.submit(tasks.lock).result()


def test_a_worker_that_dies_costs_its_task_only(tmp_path):
    count = tmp_path / "count"
    with build_executor(local(), initializer=tasks.load, initargs=(1, str(count))) as pool:
        lost, kept = pool.submit(tasks.die), pool.submit(tasks.add, 1)
        with pytest.raises(WorkerDied, match="was ended by SIGKILL before its task did"):
            lost.result()
        assert kept.result()[0] == 2
    assert len(count.read_text().split()) == 2


def test_an_idle_worker_that_dies_costs_nothing():
    with build_executor(local(), initializer=tasks.load, initargs=(1,)) as pool:
        _, pid = pool.submit(tasks.add, 1).result()
        os.kill(pid, signal.SIGKILL)
        _wait(lambda: not _alive(pid))
        value, other = pool.submit(tasks.add, 2).result()
    assert value == 3
    assert other != pid


def test_a_task_that_hangs_is_ended_with_all_it_started(tmp_path):
    mark = tmp_path / "pid"
    with build_executor(local(timeout_s=1.0)) as pool:
        hung = pool.submit(tasks.child, str(mark))
        with pytest.raises(TaskTimeout, match="longer than 1 s"):
            hung.result()
        assert pool.submit(tasks.double, 4).result() == 8
    _wait(lambda: not _alive(int(mark.read_text())))


def test_never_more_at_once_than_asked_for(tmp_path):
    with build_executor(local(max_parallel=2)) as pool:
        found = [f.result() for f in [pool.submit(tasks.inside, str(tmp_path), 0.05) for _ in range(12)]]
    assert max(found) <= 2


def test_an_exception_in_the_block_ends_the_tasks(tmp_path):
    started = time.monotonic()
    mark = tmp_path / "mark"
    with pytest.raises(KeyboardInterrupt), build_executor(local(max_parallel=1)) as pool:
        running, waiting = pool.submit(tasks.nap, 600, str(mark)), pool.submit(tasks.double, 1)
        _wait(mark.exists)
        raise KeyboardInterrupt
    assert time.monotonic() - started < 30
    assert waiting.cancelled()
    with pytest.raises(WorkerDied):
        running.result()
    with pytest.raises(UsageError, match="shut down"):
        pool.submit(tasks.double, 1)


def test_threads_and_gpus_are_divided(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    monkeypatch.setattr("razordeploy.executors.devices.threads", lambda: 8)
    from razordeploy.executors.devices import shares

    got = shares(local(max_parallel=3, gpus=1))
    assert [share["CUDA_VISIBLE_DEVICES"] for share in got] == ["3", "5", "7"]
    assert {share["OMP_NUM_THREADS"] for share in got} == {"2"}
    assert shares(local(max_parallel=1, cpus=5))[0]["OMP_NUM_THREADS"] == "5"
    with pytest.raises(UsageError, match="2 tasks of 2 GPUs need 4, found 3"):
        shares(local(max_parallel=2, gpus=2))
    with build_executor(local(cpus=3, gpus=2)) as pool:
        assert pool.submit(tasks.variable, "OMP_NUM_THREADS").result() == "3"
        assert pool.submit(tasks.variable, "CUDA_VISIBLE_DEVICES").result() == "3,5"


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_memory_is_limited():
    with build_executor(local(memory_gb=0.5)) as pool:
        assert pool.submit(tasks.allocate, 50).result() == 50_000_000
        with pytest.raises(MemoryError):
            pool.submit(tasks.allocate, 900).result()


PARENT = """
import sys
from razordeploy.config.executor import ExecutorConfig
from razordeploy.executors.build import build_executor
import executor_tasks as tasks

def own(mark):
    tasks.child(mark)

if __name__ == "__main__":
    pool = build_executor(ExecutorConfig())
    future = pool.submit(own, sys.argv[1])
    future.result()
"""


def test_workers_end_with_their_parent_however_it_ends(tmp_path):
    script, mark = tmp_path / "parent.py", tmp_path / "pid"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script), str(mark)], env=ENVIRONMENT)
    _wait(mark.exists)
    grandchild = int(mark.read_text())
    assert _alive(grandchild)
    parent.kill()
    parent.wait()
    _wait(lambda: not _alive(grandchild))


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        PARENT.replace('if __name__ == "__main__":', "if True:").replace(
            "own(mark)", "own(mark):\n    1\ndef other(mark)"
        )
    )
    done = subprocess.run(
        [sys.executable, str(script), "x"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "if __name__ == '__main__':" in done.stderr
