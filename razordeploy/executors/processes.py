"""Ending a process with everything it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_ROUNDS = 20
"""A process may start another while its session is being read; each round finds what the last one missed."""


def end_session(leader: int) -> None:
    """End every process of the session that ``leader`` led, also after it ended itself.

    Where there is no ``/proc``, only those that stayed in its process group.
    """
    # The leader first: it must not see what it waits for die, and take that for a result.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    for _ in range(_ROUNDS):
        found = _members(leader)
        if not found:
            return
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def end_own_session() -> None:
    """End this process, which leads a session, and then the rest of the session; does not return."""
    boot = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import end_session; end_session({os.getpid()})"
    command = [sys.executable, "-c", boot]
    subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    os.kill(os.getpid(), signal.SIGKILL)


def _members(session: int) -> list[int]:
    found = []
    own = os.getpid()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            # pid (name) state parent group session; the name may hold blanks and brackets
            state, _, _, sid = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            pid = int(folder.name)
            if int(sid) == session and state not in "ZX" and pid != own:
                found.append(pid)
    return found
