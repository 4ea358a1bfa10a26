"""Calls and outcomes as files of a folder: how a job that serves many tasks talks to the process that gives them.

The folder holds ``0.call``, ``0.outcome``, ``1.call`` and so on, each renamed into place when it is whole; ``beat``
changes while the giver lives, and ``end`` asks the job to end.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from razordeploy.executors.task import extend_path, load_main, result_of, run_packed

_LOOK_S = 0.05
_SILENT_S = 180.0
"""A job whose giver has not been heard of for so long ends: longer than a network disk keeps what it has read."""
_BEAT_S = 10.0


class Mailbox:
    """The giver's end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        self._beaten = 0.0
        folder.mkdir(parents=True)
        self.beat()

    def give(self, main: str, call: bytes) -> int:
        """Leave a call; returns its number."""
        number = self._count
        self._count += 1
        _put(self.folder / f"{number}.call", main.encode() + b"\0" + call)
        return number

    def outcome(self, number: int) -> bytes | None:
        """The packed outcome of a call; None: it is not there yet."""
        self.beat()
        return _get(self.folder / f"{number}.outcome")

    def started(self, number: int) -> bool:
        """Tell whether the job has taken the call."""
        return (self.folder / f"{number}.started").exists()

    def beat(self) -> None:
        """Say that the giver lives, now and then."""
        if time.monotonic() - self._beaten > _BEAT_S:
            self._beaten = time.monotonic()
            _put(self.folder / "beat", str(self._beaten).encode())

    def end(self) -> None:
        """Let the job end after the call that it runs."""
        _put(self.folder / "end", b"")


def serve_mailbox(folder: str, paths: list[str], variables: dict[str, str], main: str, first: bytes) -> bytes | None:
    """The job: run ``first`` once, then every call in its turn, until the giver asks for the end or is gone.

    Returns the packed outcome of ``first`` where that fails, and None otherwise.
    """
    extend_path(paths)
    os.environ.update(variables)
    loaded = _load(main, "")
    begun = run_packed(first)
    try:
        result_of(begun)
    except Exception:
        return begun
    number = 0
    while (found := _next(Path(folder), number)) is not None:
        named, _, call = found.partition(b"\0")
        loaded = _load(named.decode(), loaded)
        _put(Path(folder) / f"{number}.outcome", run_packed(call))
        number += 1
    return None


def _load(main: str, loaded: str) -> str:
    if main and main != loaded:
        load_main(main)
    return main or loaded


def _next(folder: Path, number: int) -> bytes | None:
    """Wait for a call; None: there will be none."""
    heard, last = time.monotonic(), b""
    while True:
        call = _get(folder / f"{number}.call")
        if call is not None:
            (folder / f"{number}.started").touch()
            return call
        beat = _get(folder / "beat") or b""
        if beat != last:
            heard, last = time.monotonic(), beat
        if (folder / "end").exists() or time.monotonic() - heard > _SILENT_S:
            return None
        time.sleep(_LOOK_S)


def _put(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)


def _get(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
