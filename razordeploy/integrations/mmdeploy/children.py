"""A child process that died counts as failed."""

from __future__ import annotations

import functools
from multiprocessing.process import BaseProcess
from typing import Any


def count_dead_children_as_failed() -> None:
    """mmdeploy's ``create_process`` reads a shared value that says success until the child's own code says otherwise.

    A child that dies before that, for want of a module or when its arguments cannot be unpickled, would read as
    success, and the script end with 0. Joining such a child sets the value to failure.
    """
    if getattr(BaseProcess.join, "razordeploy", False):
        return
    start, join = BaseProcess.start, BaseProcess.join

    @functools.wraps(start)
    def watched_start(self: Any) -> None:
        self._razordeploy_flag = _flag(self)
        start(self)

    @functools.wraps(join)
    def watched_join(self: Any, timeout: float | None = None) -> None:
        join(self, timeout)
        flag = getattr(self, "_razordeploy_flag", None)
        if flag is not None and self.exitcode not in (None, 0) and flag.value == 0:
            flag.value = -1

    watched_join.razordeploy = True  # type: ignore[attr-defined]
    BaseProcess.start, BaseProcess.join = watched_start, watched_join  # type: ignore[method-assign]


def _flag(process: Any) -> Any:
    """The shared value among the arguments of ``target_wrapper``; None in any other process."""
    target = getattr(process, "_target", None)
    if not isinstance(target, functools.partial) or getattr(target.func, "__name__", "") != "target_wrapper":
        return None
    given = [*target.args, *target.keywords.values()]
    return next((value for value in given if hasattr(value, "value") and not isinstance(value, type)), None)
