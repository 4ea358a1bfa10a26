"""Tasks in processes of this machine, which stay alive between tasks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from razordeploy.config.executor import ExecutorConfig
from razordeploy.errors import TaskTimeout, UsageError, WorkerDied
from razordeploy.executors.base import Worker, WorkerExecutor
from razordeploy.executors.devices import shares
from razordeploy.executors.processes import end_session
from razordeploy.executors.task import loading_main, main_module, pack, result_of
from razordeploy.executors.worker import TAKEN

_BOOT = "import sys; sys.path[:] = {path!r}; from razordeploy.executors.worker import main; main({fd})"


def local_executor(
    config: ExecutorConfig, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> WorkerExecutor:
    """A pool of ``max_parallel`` processes, each with its share of the machine's threads and GPUs."""
    if loading_main():
        raise UsageError(
            "a worker that loads this script would start workers of its own",
            hint="put what the script does under if __name__ == '__main__':",
        )
    first = None if initializer is None else pack(initializer, initargs, {})
    return WorkerExecutor([ProcessWorker(config, share, first) for share in shares(config)])


class _NotTaken(WorkerDied):
    """The process ended before it began with the call."""


class ProcessWorker(Worker):
    """A process that is started with the first task and replaced after it died.

    It leads a session of its own: Ctrl-C reaches only the parent, and ending it ends what it has started. It ends
    by itself when its parent is gone, however that went.
    """

    def __init__(self, config: ExecutorConfig, environment: dict[str, str], first: bytes | None) -> None:
        self._config = config
        self._environment = environment
        self._first = first
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._killed = False

    def run(self, call: bytes) -> bytes:
        """Run a packed call in the process, which is started where there is none."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        try:
            return self._exchange(call)
        except _NotTaken:
            # It was dying already, idle: the call is as good as new.
            self._start()
            return self._exchange(call)

    def kill(self) -> None:
        """End the process and everything it started."""
        with self._lock:
            self._killed = True
            self._end()

    def close(self) -> None:
        """End the idle process."""
        if self._connection is not None:
            self._connection.close()  # it leaves when it reads the end
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
            self._end()
        self._process = self._connection = None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            if self._killed:
                raise WorkerDied("the executor was ended")
            self.close()
            command = [
                sys.executable,
                "-c",
                _BOOT.format(path=[p or str(Path.cwd()) for p in sys.path], fd=theirs.fileno()),
            ]
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=2,  # stdout belongs to the program that asked
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            self._connection = Connection(ours.detach())
        self._limit_memory(self._process.pid)
        if self._first is not None:
            result_of(self._exchange(self._first))

    def _limit_memory(self, pid: int) -> None:
        if self._config.memory_gb is None or sys.platform != "linux":
            return
        import resource

        size = int(self._config.memory_gb * 1e9)
        with suppress(ProcessLookupError):
            # Data, not address space: CUDA reserves many times what it uses.
            resource.prlimit(pid, resource.RLIMIT_DATA, (size, size))

    def _exchange(self, call: bytes) -> bytes:
        connection, process = self._connection, self._process
        assert connection is not None
        assert process is not None
        taken = False
        try:
            connection.send_bytes(main_module(call).encode())
            connection.send_bytes(call)
            taken = connection.poll(self._config.timeout_s) and connection.recv_bytes() == TAKEN
            if not taken or not connection.poll(self._config.timeout_s):
                self._end()
                raise TaskTimeout(f"a task ran longer than {self._config.timeout_s:g} s and was ended")
            return connection.recv_bytes()
        except (EOFError, OSError) as error:
            self._end()
            kind = WorkerDied if taken else _NotTaken
            raise kind(f"worker process {process.pid} {_how(process.wait())} before its task did") from error

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        end_session(process.pid)
        process.wait()


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}"
