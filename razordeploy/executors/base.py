"""The executor: a queue of tasks and a fixed number of workers that take them."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import Any

from razordeploy.errors import UsageError
from razordeploy.executors.task import pack, result_of

_END = 2**62
"""Number of the entry that ends a thread: behind every task."""
_NOT_READY_S = 0.5


class TaskExecutor(Executor, ABC):
    """A ``concurrent.futures`` executor that says how many tasks it runs at once and can end those that run.

    A task whose worker dies gets ``WorkerDied`` and one that runs too long ``TaskTimeout``; the executor goes on with
    a new worker. Leaving the ``with`` block by an exception ends the tasks, leaving it otherwise waits for them.
    """

    max_parallel: int
    """Tasks that run at once."""

    @abstractmethod
    def kill(self) -> None:
        """Cancel what waits, end what runs, and take no more tasks."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.shutdown()
        else:
            self.kill()


class Worker(ABC):
    """What runs one task at a time, somewhere; used by one thread, except for ``kill``."""

    def ready(self) -> bool:
        """Tell whether a task can be given now; False: ask again, the task may go to another worker."""
        return True

    @abstractmethod
    def run(self, call: bytes) -> bytes:
        """Run a packed call and return its packed outcome.

        Raises:
            WorkerDied: what ran it ended first.
            TaskTimeout: it ran too long, and was ended.
        """

    @abstractmethod
    def kill(self) -> None:
        """End the task that runs, which makes ``run`` raise; called from any thread."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; the worker is idle."""


class WorkerExecutor(TaskExecutor):
    """One thread a worker; a thread starts its worker with the first task it takes."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.max_parallel = len(workers)
        self._workers = workers
        self._queue: queue.PriorityQueue[tuple[int, Future[Any] | None, bytes]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._closed = False
        self._ended = False
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue ``fn(*args, **kwargs)``; tasks start in the order they came.

        Raises:
            UsageError: the call cannot be pickled, or the executor is shut down.
        """
        call = pack(fn, args, kwargs)
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise UsageError("this executor is shut down", hint="make another one")
            self._queue.put((next(self._numbers), future, call))
            if len(self._threads) < self.max_parallel:
                worker = self._workers[len(self._threads)]
                thread = threading.Thread(target=self._serve, args=(worker,), daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; finish what is queued, or cancel it."""
        with self._lock:
            self._closed = True
        if cancel_futures:
            self._cancel_waiting()
        self._queue.put((_END, None, b""))
        if wait:
            for thread in self._threads:
                thread.join()

    def kill(self) -> None:
        """Cancel what waits, end what runs, and take no more tasks."""
        self._ended = True
        self.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.kill()
        for thread in self._threads:
            thread.join()

    def _cancel_waiting(self) -> None:
        while True:
            try:
                _, future, _ = self._queue.get_nowait()
            except queue.Empty:
                return
            if future is not None:
                future.cancel()

    def _serve(self, worker: Worker) -> None:
        try:
            while True:
                number, future, call = self._queue.get()
                if future is None:
                    self._queue.put((number, None, call))  # for the next thread
                    return
                self._give(worker, number, future, call)
        finally:
            worker.close()

    def _give(self, worker: Worker, number: int, future: Future[Any], call: bytes) -> None:
        try:
            if self._ended:
                future.cancel()
                return
            if not worker.ready():
                self._queue.put((number, future, call))
                time.sleep(_NOT_READY_S)
                return
            if not future.set_running_or_notify_cancel():
                return
            future.set_result(result_of(worker.run(call)))
        except BaseException as error:
            if not future.done():
                future.set_exception(error)
