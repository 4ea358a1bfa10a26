"""Tasks in the calling process, one after the other: for debugging."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from razordeploy.errors import UsageError
from razordeploy.executors.base import TaskExecutor


class InlineExecutor(TaskExecutor):
    """``submit`` returns when the task has run; nothing is pickled, and a breakpoint in a task works.

    There is no process to limit, so that ``timeout_s`` and ``memory_gb`` mean nothing here.
    """

    max_parallel = 1

    def __init__(self, initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()) -> None:
        self._initializer = initializer
        self._initargs = initargs
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the task now; what it raises is kept in the future."""
        if self._closed:
            raise UsageError("this executor is shut down", hint="make another one")
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            if self._initializer is not None:
                self._initializer(*self._initargs)
                self._initializer = None
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks."""
        self._closed = True

    def kill(self) -> None:
        """Take no more tasks."""
        self._closed = True
