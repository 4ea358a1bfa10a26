"""Tasks in this process."""

from __future__ import annotations

import os

import executor_tasks as tasks
import pytest

from razordeploy.config.executor import ExecutorConfig
from razordeploy.errors import DataError, UsageError
from razordeploy.executors.build import build_executor


def test_inline_runs_at_once_and_here():
    ran = []
    with build_executor(ExecutorConfig(type="inline"), initializer=tasks.load, initargs=(3,)) as pool:
        future = pool.submit(lambda: ran.append(os.getpid()))
        assert ran == [os.getpid()]
        assert future.done()
        assert pool.submit(tasks.add, 1).result() == (4, os.getpid())
        with pytest.raises(DataError):
            pool.submit(tasks.fail, "x").result()
    with pytest.raises(UsageError, match="shut down"):
        pool.submit(tasks.double, 1)


@pytest.mark.parametrize(("kind", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_a_pip_line(monkeypatch, kind, package):
    from razordeploy.errors import MissingDependency

    monkeypatch.setattr("razordeploy.lazy.available", lambda name: name != package)
    with pytest.raises(MissingDependency, match=rf"'{package}' is not installed; pip install 'razordeploy\[{kind}\]'"):
        build_executor(ExecutorConfig(type=kind))
