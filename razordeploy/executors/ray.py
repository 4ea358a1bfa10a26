"""Tasks on a Ray cluster: one actor a worker, which stays alive between tasks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from razordeploy.config.executor import ExecutorConfig
from razordeploy.errors import TaskTimeout, UsageError, WorkerDied
from razordeploy.executors.base import Worker, WorkerExecutor
from razordeploy.executors.devices import thread_variables
from razordeploy.executors.task import extend_path, load_main, main_module, pack, result_of, run_packed
from razordeploy.lazy import require

_START_S = 1.0
"""How long a task stays with a worker whose actor is not there yet, before another may take it."""


def ray_executor(
    config: ExecutorConfig, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> WorkerExecutor:
    """At most ``max_parallel`` actors, wherever the cluster has room for them.

    Joins the cluster at ``address``, the one that this process is connected to, or starts one on this machine.

    Raises:
        MissingDependency: Ray is not installed.
        UsageError: there is no cluster at ``address``, or no node of it can ever hold such a task.
    """
    ray = require("ray", extra="ray")
    if not ray.is_initialized():
        try:
            ray.init(address=config.address, include_dashboard=False, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError) as error:
            hint = "start one with 'ray start --head', or leave out the address"
            raise UsageError(f"no Ray cluster at '{config.address}': {error}", hint=hint) from error
    _check_fits(ray, config)
    first = None if initializer is None else pack(initializer, initargs, {})
    return WorkerExecutor([ActorWorker(ray, config, first) for _ in range(config.max_parallel)])


def _check_fits(ray: Any, config: ExecutorConfig) -> None:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": config.cpus or 1, "GPU": config.gpus, "memory": (config.memory_gb or 0) * 1e9}
    if not any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
        found = ", ".join(f"{n.get('CPU', 0):g} CPUs and {n.get('GPU', 0):g} GPUs" for n in nodes) or "no node"
        raise UsageError(
            f"executor: no node of the Ray cluster can hold a task of {wanted['CPU']} CPUs, {config.gpus} GPUs and "
            f"{config.memory_gb or 0:g} GB; found {found}",
            hint="lower executor.cpus, gpus or memory_gb",
        )


class Server:
    """The actor: runs packed calls, one at a time."""

    def __init__(self, paths: list[str], variables: dict[str, str]) -> None:
        extend_path(paths)
        os.environ.update(variables)
        self._main = ""

    def ping(self) -> None:
        """Answer once the actor is there."""

    def run(self, main: str, call: bytes) -> bytes:
        """Run a packed call."""
        if main and main != self._main:
            load_main(main)
            self._main = main
        return run_packed(call)


class ActorWorker(Worker):
    """An actor that is made with the first task and again after it, or its node, was lost."""

    def __init__(self, ray: Any, config: ExecutorConfig, first: bytes | None) -> None:
        self._ray = ray
        self._config = config
        self._first = first
        self._actor: Any = None
        self._initialized = False
        self._starting: tuple[Any, Any] | None = None
        self._lock = threading.Lock()
        self._killed = False

    def ready(self) -> bool:
        """Ask for an actor, and wait a little; False where the cluster has no room now."""
        if self._actor is not None or self._killed:
            return True
        if self._starting is None:
            actor = self._new_actor()
            self._starting = actor, actor.ping.remote()
        actor, answer = self._starting
        if not self._ray.wait([answer], timeout=_START_S)[0]:
            return False
        self._starting = None
        try:
            self._ray.get(answer)
        except self._ray.exceptions.RayError:
            return False  # its node went away meanwhile: ask for another
        self._actor, self._initialized = actor, False
        return True

    def run(self, call: bytes) -> bytes:
        """Run a packed call in the actor."""
        with self._lock:
            actor = self._actor
        if actor is None:
            raise WorkerDied("the executor was ended")
        if self._first is not None and not self._initialized:
            result_of(self._exchange(actor, self._first))
            self._initialized = True
        return self._exchange(actor, call)

    def kill(self) -> None:
        """End the actor and what it runs."""
        with self._lock:
            self._killed = True
            self._end()

    def close(self) -> None:
        """Give the actor's resources back."""
        self._end()

    def _new_actor(self) -> Any:
        cpus = self._config.cpus or 1
        options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": self._config.gpus, "max_restarts": 0}
        if self._config.memory_gb is not None:
            options["memory"] = int(self._config.memory_gb * 1e9)
        return self._ray.remote(**options)(Server).remote(sys.path, thread_variables(cpus))

    def _exchange(self, actor: Any, call: bytes) -> bytes:
        errors = self._ray.exceptions
        try:
            return self._ray.get(actor.run.remote(main_module(call), call), timeout=self._config.timeout_s)
        except errors.GetTimeoutError as error:
            self._end()
            raise TaskTimeout(f"a task ran longer than {self._config.timeout_s:g} s and was ended") from error
        except errors.RayError as error:
            self._end()
            text = str(error).strip().splitlines()
            raise WorkerDied(
                f"the Ray worker of a task was lost: {text[0] if text else type(error).__name__}"
            ) from error

    def _end(self) -> None:
        actors = [self._actor, *(self._starting or ())[:1]]
        self._actor = self._starting = None
        for actor in actors:
            if actor is not None and self._ray.is_initialized():
                self._ray.kill(actor)
