"""A Ray cluster of two nodes, each of processes of its own on this machine."""

from __future__ import annotations

import os
import signal
import time
import warnings

import executor_tasks as tasks
import pytest

from razordeploy.config.executor import ExecutorConfig
from razordeploy.errors import DataError, TaskTimeout, UsageError, WorkerDied
from razordeploy.executors.build import build_executor

ray = pytest.importorskip("ray", reason="Ray is not installed")


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": quick}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def on_ray(**options):
    return ExecutorConfig(type="ray", **options)


def test_tasks_run_on_both_nodes_and_keep_their_workers(cluster):
    with build_executor(on_ray(max_parallel=2), initializer=tasks.load, initargs=(5,)) as pool:
        slow = [pool.submit(tasks.nap, 0.5) for _ in range(2)]
        values = [pool.submit(tasks.add, x) for x in range(8)]
        found = [f.result() for f in values]
        assert [f.result() for f in slow] == [0.5, 0.5]
        nodes = {f.result()[0] for f in [pool.submit(tasks.where) for _ in range(8)]}
    assert [value for value, _ in found] == list(range(5, 13))
    assert 1 <= len({pid for _, pid in found}) <= 2
    assert nodes <= {n["NodeID"] for n in ray.nodes()}


def test_errors_time_limits_and_deaths(cluster):
    with build_executor(on_ray(max_parallel=1, timeout_s=2.0)) as pool:
        with pytest.raises(DataError, match="no images; give other data"):
            pool.submit(tasks.fail, "no images").result()
        with pytest.raises(WorkerDied, match="Ray worker"):
            pool.submit(tasks.die).result()
        assert pool.submit(tasks.double, 4).result() == 8
        with pytest.raises(TaskTimeout, match="longer than 2 s"):
            pool.submit(tasks.nap, 60).result()
        assert pool.submit(tasks.variable, "OMP_NUM_THREADS").result() == "1"


def test_a_task_that_no_node_can_hold_is_refused(cluster):
    with pytest.raises(UsageError, match="no node of the Ray cluster can hold a task of 2 CPUs"):
        build_executor(on_ray(cpus=2))


def test_a_node_that_goes_away_costs_what_ran_on_it(cluster, tmp_path):
    extra = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    go, marks = tmp_path / "go", [tmp_path / f"mark{i}" for i in range(3)]
    with build_executor(on_ray(max_parallel=3)) as pool:
        running = [pool.submit(tasks.wait_for, str(go), str(mark)) for mark in marks]
        later = [pool.submit(tasks.double, x) for x in range(6)]
        _until(lambda: all(mark.exists() for mark in marks))
        os.kill(extra.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        _until(lambda: any(future.done() for future in running))
        go.touch()
        outcomes = [f.exception() for f in running]
        assert [f.result() for f in later] == [0, 2, 4, 6, 8, 10]
    assert sum(isinstance(outcome, WorkerDied) for outcome in outcomes) == 1
    assert sum(outcome is None for outcome in outcomes) == 2


def _until(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
