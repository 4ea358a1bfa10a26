"""Tasks as Slurm jobs, by way of submitit; its own ``local`` and ``debug`` clusters run them without Slurm."""

from __future__ import annotations

import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from razordeploy.config.executor import ExecutorConfig
from razordeploy.errors import TaskTimeout, UsageError, WorkerDied
from razordeploy.executors.base import Worker, WorkerExecutor
from razordeploy.executors.devices import thread_variables
from razordeploy.executors.task import extend_path, load_main, main_module, pack, result_of, run_packed
from razordeploy.lazy import require
from razordeploy.storage import make_folder

_DAY_MINUTES = 24 * 60
"""A job has to name a limit; submitit's own, 5 minutes, is too short for a training."""
_GRACE_MINUTES = 2
"""Slurm's own limit lies this far behind ours, so that it is ours that ends a task."""


def slurm_executor(
    config: ExecutorConfig, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], folder: Path
) -> WorkerExecutor:
    """At most ``max_parallel`` jobs at a time, one a task.

    Args:
        config: resources, and submitit's own parameters in ``options``.
        initializer: run in every job before its task.
        initargs: its arguments.
        folder: scripts and logs of the jobs; every node has to see it.

    Raises:
        MissingDependency: submitit is not installed.
        UsageError: there is no ``sbatch``, or submitit does not know one of ``options``.
    """
    submitit = require("submitit", extra="slurm")
    if config.cluster == "slurm" and shutil.which("sbatch") is None:
        hint = "run on a login node of the cluster, or set executor.cluster='local'"
        raise UsageError("executor 'slurm': expected the command 'sbatch' on the PATH, found none", hint=hint)
    make_folder(folder)
    # A task is not asked twice: submitit would run it again after a preemption.
    limits = {"slurm_max_num_timeout": 0} if config.cluster == "slurm" else {}
    try:
        jobs = submitit.AutoExecutor(folder=folder, cluster=config.cluster, **limits)
        jobs.update_parameters(**_parameters(config))
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"executor 'slurm': {error}", hint="see submitit.AutoExecutor.update_parameters") from error
    first = None if initializer is None else pack(initializer, initargs, {})
    lock = threading.Lock()
    return WorkerExecutor([JobWorker(jobs, lock, config, first) for _ in range(config.max_parallel)])


def _parameters(config: ExecutorConfig) -> dict[str, Any]:
    found: dict[str, Any] = {"name": "razordeploy", "cpus_per_task": config.cpus or 1, "nodes": 1, "tasks_per_node": 1}
    if config.gpus:
        found["gpus_per_node"] = config.gpus
    if config.memory_gb is not None:
        found["mem_gb"] = config.memory_gb
    found["timeout_min"] = _DAY_MINUTES
    if config.timeout_s is not None:
        found["timeout_min"] = math.ceil(config.timeout_s / 60) + _GRACE_MINUTES
    return {**found, **config.options}


def serve(paths: list[str], variables: dict[str, str], main: str, first: bytes | None, call: bytes) -> bytes:
    """Run a packed call on the node."""
    extend_path(paths)
    os.environ.update(variables)
    if main:
        load_main(main)
    if first is not None:
        result_of(run_packed(first))
    return run_packed(call)


class JobWorker(Worker):
    """Submits a job, waits for its end, and is then free for the next."""

    def __init__(self, jobs: Any, lock: threading.Lock, config: ExecutorConfig, first: bytes | None) -> None:
        self._jobs = jobs
        self._submitting = lock
        self._config = config
        self._first = first
        self._job: Any = None
        self._killed = False

    def run(self, call: bytes) -> bytes:
        """Run a packed call as a job."""
        variables = thread_variables(self._config.cpus or 1)
        # submitit's executor is not made for threads.
        with self._submitting:
            if self._killed:
                raise WorkerDied("the executor was ended")
            self._job = self._jobs.submit(serve, sys.path, variables, main_module(call), self._first, call)
        try:
            return self._outcome(self._job)
        finally:
            self._job = None

    def kill(self) -> None:
        """Cancel the job."""
        with self._submitting:
            self._killed = True
            if self._job is not None:
                self._job.cancel(check=False)

    def close(self) -> None:
        """Nothing is left of a job that ended."""

    def _outcome(self, job: Any) -> bytes:
        if self._config.cluster != "debug":
            self._wait(job)
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            return job.result()
        except (FailedJobError, UncompletedJobError) as error:
            text = " ".join(str(error).split())
            raise WorkerDied(f"job {job.job_id} ended before its task did: {text[:200]}") from error

    def _wait(self, job: Any) -> None:
        limit = self._config.timeout_s
        started: float | None = None
        while not job.done():
            # A job's time in the queue does not count.
            if started is None and job.state not in ("PENDING", "UNKNOWN"):
                started = time.monotonic()
            if limit is not None and started is not None and time.monotonic() - started > limit:
                job.cancel()
                raise TaskTimeout(f"a task ran longer than {limit:g} s and was ended")
            time.sleep(self._config.poll_s)
