"""Tasks that the executors' tests run in other processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from razordeploy.errors import DataError

STATE: dict[str, Any] = {}


def load(value: int, count: str | None = None) -> None:
    """An initializer; ``count`` is a file that gets a line for every call."""
    STATE["value"] = value
    if count is not None:
        with Path(count).open("a") as file:
            file.write(f"{os.getpid()}\n")


def add(x: int) -> tuple[int, int]:
    return STATE["value"] + x, os.getpid()


def double(x: int) -> int:
    return 2 * x


def fail(text: str) -> None:
    raise DataError(text, hint="give other data")


def die(signal_number: int = 9) -> None:
    os.kill(os.getpid(), signal_number)


def nap(seconds: float, mark: str | None = None) -> float:
    if mark is not None:
        Path(mark).touch()
    time.sleep(seconds)
    return seconds


def variable(name: str) -> str | None:
    return os.environ.get(name)


def child(mark: str) -> None:
    """Start a process that would outlive this one, and hang."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    partial = Path(f"{mark}.partial")
    partial.write_text(str(process.pid))
    partial.rename(mark)
    time.sleep(600)


def inside(counter: str, seconds: float) -> int:
    """How many of these run now, this one included."""
    folder = Path(counter)
    mine = folder / str(os.getpid())
    mine.touch()
    found = len(list(folder.iterdir()))
    time.sleep(seconds)
    mine.unlink()
    return found


def allocate(megabytes: int) -> int:
    return len(b"x" * (megabytes * 1_000_000))


def lock() -> Any:
    return threading.Lock()


def where() -> tuple[str, int]:
    """Ray node and process."""
    import ray

    return ray.get_runtime_context().get_node_id(), os.getpid()


def wait_for(go: str, mark: str) -> None:
    """Say that it runs, and run until the file ``go`` is there."""
    Path(mark).touch()
    while not Path(go).exists():
        time.sleep(0.05)
