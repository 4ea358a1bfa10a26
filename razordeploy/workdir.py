"""The folder of one run: made, checked for permission and space, and locked against a second run."""

from __future__ import annotations

import json
import os
import shutil
import socket
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from razordeploy.errors import StorageError
from razordeploy.storage import make_folder, storage_errors
from razordeploy.strict_json import json_text

LOCK = ".lock"


class WorkDir:
    """A context manager that holds ``path`` for one run.

    The operating system drops the lock with the process, so the lock of a run that died is simply taken over.

    Raises (on entry):
        UsageError: ``path`` is a file.
        StorageError: no permission, read-only disk, or a live run holds the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: Any = None

    def __enter__(self) -> WorkDir:
        make_folder(self.path)
        with storage_errors(self.path):
            self._lock = self._acquire()
            try:
                self._write_holder()
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The file stays: removing it would let two later runs hold two different files of the same name.
        with suppress(OSError):
            (self.path / LOCK).write_text("")
        self._lock.release()

    def require_free(self, size_bytes: int) -> None:
        """Check, before the work starts, that the disk has ``size_bytes`` left.

        Raises:
            StorageError: it has not; the message says how much is needed and how much there is.
        """
        free = shutil.disk_usage(self.path).free
        if free < size_bytes:
            raise StorageError(
                f"{self.path} needs {size_bytes / 1e6:.1f} MB of free disk, found {free / 1e6:.1f} MB",
                hint="free some space or give --work-dir on another disk",
            )

    def _acquire(self) -> Any:
        # Inside, so that reading a manifest or a report does not need the package.
        from filelock import FileLock, Timeout

        holder = self._read_holder()
        # thread_local=False: the run may be left by another thread than the one that entered it.
        lock = FileLock(self.path / LOCK, timeout=0, thread_local=False)
        try:
            return lock.acquire().lock
        except Timeout:
            by = _holder_text(holder or self._read_holder())
            hint = "wait for it to end, or give another --work-dir"
            raise StorageError(f"{self.path} is in use by {by}", hint=hint) from None

    def _write_holder(self) -> None:
        started = datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
        # In place, not by rename: the lock is on this very file.
        (self.path / LOCK).write_text(json_text(holder))

    def _read_holder(self) -> dict[str, Any]:
        try:
            holder = json.loads((self.path / LOCK).read_text())
        except (OSError, ValueError):
            return {}
        return holder if isinstance(holder, dict) else {}


def _holder_text(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    return f"process {holder.get('pid')} on {holder.get('host')}, started {holder.get('started')}"
