"""SIGINT and SIGTERM: end a run at a safe point, or at once, and say so in the exit code."""

from __future__ import annotations

import os
import signal
import sys
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
    """Leave the block with :class:`Signalled` as soon as SIGINT or SIGTERM comes.

    Also where a library took the signal for a failure of its own and raised another error (yapf, inside mmengine,
    catches everything, and native code may report it as a ``SystemError``), and where it came while a finalizer or
    a callback of the garbage collector ran, which lets no exception out.
    """
    came: list[Signalled] = []

    def handle(number: int, frame: FrameType | None) -> None:
        came.append(Signalled(number))
        raise came[-1]

    with _handled_by(handle), _unraisable_raised_again():
        try:
            yield
        except Exception:
            if came:
                raise came[-1] from None
            raise


@contextmanager
def _unraisable_raised_again() -> Iterator[None]:
    before = sys.unraisablehook
    again: list[threading.Timer] = []

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        error = unraisable.exc_value
        if isinstance(error, Signalled):
            # Sent at once, the signal would be handled inside this hook, which lets no exception out either.
            again.append(threading.Timer(0.01, os.kill, (os.getpid(), error.number)))
            again[-1].start()
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in again:
            timer.cancel()


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
