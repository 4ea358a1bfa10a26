"""Tasks as Slurm jobs, by way of submitit; its own ``local`` and ``debug`` clusters run them without Slurm."""

from __future__ import annotations

import math
import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from razordeploy.config.executor import ExecutorConfig
from razordeploy.errors import TaskTimeout, UsageError, WorkerDied
from razordeploy.executors.base import Worker, WorkerExecutor
from razordeploy.executors.devices import thread_variables
from razordeploy.executors.mailbox import Mailbox, serve_mailbox
from razordeploy.executors.task import extend_path, load_main, main_module, pack, result_of, run_packed
from razordeploy.lazy import require
from razordeploy.storage import make_folder

_LOOK_S = 0.05
_DAY_MINUTES = 24 * 60
"""A job has to name a limit; submitit's own, 5 minutes, is too short for a training."""
_GRACE_MINUTES = 2
"""Slurm's own limit lies this far behind ours, so that it is ours that ends a task."""


def slurm_executor(
    config: ExecutorConfig, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], folder: Path
) -> WorkerExecutor:
    """At most ``max_parallel`` jobs at a time.

    Without an initializer every task is a job. With one a job serves task after task, so that what the initializer
    loads is loaded once a job.

    Args:
        config: resources, and submitit's own parameters in ``options``.
        initializer: run in every job before its first task.
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
        jobs.update_parameters(**_parameters(config, serving=initializer is not None))
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"executor 'slurm': {error}", hint="see submitit.AutoExecutor.update_parameters") from error
    first = None if initializer is None else pack(initializer, initargs, {})
    lock = threading.Lock()
    if first is None or config.cluster == "debug":
        return WorkerExecutor([JobWorker(jobs, lock, config, first) for _ in range(config.max_parallel)])
    return WorkerExecutor([ServingJobWorker(jobs, lock, config, first, folder) for _ in range(config.max_parallel)])


def _parameters(config: ExecutorConfig, *, serving: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"name": "razordeploy", "cpus_per_task": config.cpus or 1, "nodes": 1, "tasks_per_node": 1}
    if config.gpus:
        found["gpus_per_node"] = config.gpus
    if config.memory_gb is not None:
        found["mem_gb"] = config.memory_gb
    found["timeout_min"] = _DAY_MINUTES
    if config.timeout_s is not None and not serving:
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


class ServingJobWorker(JobWorker):
    """A job that stays, and takes one call after the other from a folder; a new one takes its place when it ends."""

    def __init__(self, jobs: Any, lock: threading.Lock, config: ExecutorConfig, first: bytes, folder: Path) -> None:
        super().__init__(jobs, lock, config, first)
        self._folder = folder
        self._mailbox: Mailbox | None = None

    def run(self, call: bytes) -> bytes:
        """Run a packed call in the job, which is submitted where there is none."""
        if self._mailbox is None or self._job is None or self._job.done():
            self._submit(call)
        job, mailbox = self._job, self._mailbox
        assert mailbox is not None
        number = mailbox.give(main_module(call), call)
        started: float | None = None
        looked = time.monotonic()
        while (outcome := mailbox.outcome(number)) is None:
            now = time.monotonic()
            if started is None and mailbox.started(number):
                started = now
            limit = self._config.timeout_s
            if limit is not None and started is not None and now - started > limit:
                self._drop()
                raise TaskTimeout(f"a task ran longer than {limit:g} s and was ended")
            if now - looked > self._config.poll_s:
                looked = now
                if job.done():
                    return self._last_word(job, mailbox, number)
            time.sleep(min(_LOOK_S, self._config.poll_s))
        return outcome

    def close(self) -> None:
        """Let the idle job end."""
        if self._mailbox is not None:
            self._mailbox.end()
        self._mailbox = None

    def _submit(self, call: bytes) -> None:
        variables = thread_variables(self._config.cpus or 1)
        with self._submitting:
            if self._killed:
                raise WorkerDied("the executor was ended")
            self._mailbox = Mailbox(self._folder / f"mailbox-{uuid.uuid4().hex}")
            main = main_module(self._first or b"") or main_module(call)
            place = str(self._mailbox.folder.resolve())
            self._job = self._jobs.submit(serve_mailbox, place, sys.path, variables, main, self._first)

    def _drop(self) -> None:
        self._job.cancel(check=False)
        self._job = self._mailbox = None

    def _last_word(self, job: Any, mailbox: Mailbox, number: int) -> bytes:
        """The job has ended: by its task's outcome, by what its initializer raised, or by being killed."""
        self._job = self._mailbox = None
        outcome = mailbox.outcome(number)
        if outcome is not None:
            return outcome
        begun: bytes | None = self._outcome(job)
        if begun is None:
            raise WorkerDied(f"job {job.job_id} ended before its task did")
        return begun
