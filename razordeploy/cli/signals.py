"""SIGINT and SIGTERM: end a run at a safe point, or at once, and say so in the exit code."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signalled(BaseException):
    """A signal that ends the process; not an ``Exception``, so that no library takes it for a failure of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell reports for this signal: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


class Stop:
    """Remembers the signal that asked the run to end."""

    number: int = 0

    def __call__(self) -> bool:
        """True once a signal came."""
        return bool(self.number)


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Leave the block with :class:`Signalled` as soon as SIGINT or SIGTERM comes."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise Signalled(number)

    with _handled_by(handle):
        yield


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """First SIGINT or SIGTERM: finish the batch, keep the statistics, stop. Second one: stop at once."""
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.number:
            raise Signalled(number)
        stop.number = number
        # Not print(): the signal may have come in the middle of one.
        os.write(2, b"stopping after this step; send the signal again to stop at once\n")

    with _handled_by(handle):
        yield stop


@contextmanager
def _handled_by(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # python only lets the main thread handle signals
        return
    before = {number: signal.signal(number, handle) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
