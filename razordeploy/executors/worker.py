"""What a process of the local executor does: calls come in on a socket, outcomes go back on it."""

from __future__ import annotations

import os
import queue
import threading
from multiprocessing.connection import Connection

from razordeploy.executors.processes import end_own_session
from razordeploy.executors.task import load_main, run_packed

TAKEN = b"taken"
"""Sent before a call is run: a worker that dies without it has not begun."""


def main(descriptor: int) -> None:
    """Serve the socket ``descriptor`` until the other end is closed; the process ends then, also within a task."""
    # Commands that a task starts must not keep the socket open.
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    calls: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, calls), daemon=True).start()
    loaded = b""
    while True:
        main_module, call = calls.get()
        connection.send_bytes(TAKEN)
        if main_module and main_module != loaded:
            load_main(main_module.decode())
            loaded = main_module
        connection.send_bytes(run_packed(call))


def _read(connection: Connection, calls: queue.SimpleQueue[tuple[bytes, bytes]]) -> None:
    """Hand on what comes in; when the parent is gone, end this process and all that it has started."""
    try:
        while True:
            calls.put((connection.recv_bytes(), connection.recv_bytes()))
    except (EOFError, OSError):
        end_own_session()
