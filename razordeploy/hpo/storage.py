"""Where a study is kept: Optuna's journal file in the work dir, or a database."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from razordeploy.errors import StorageError
from razordeploy.lazy import require
from razordeploy.storage import storage_errors

JOURNAL = "study.journal"
NAME = "study"


def optuna() -> Any:
    """Import Optuna, with its own log quiet.

    Raises:
        MissingDependency: it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = require("optuna", extra="hpo")
    module.logging.set_verbosity(logging.WARNING)
    return module


def open_study(folder: Path, directions: list[str], url: str | None, *, writing: bool) -> Any:
    """Open the study in ``folder``, or make it.

    Args:
        folder: the work dir; with ``writing`` the caller holds its lock.
        directions: ``maximise`` or ``minimise``, one per reward.
        url: of a database; None: the journal file.
        writing: True cuts off the half line that a killed process may have left in the journal.

    Raises:
        StorageError: the journal cannot be read, or the database cannot be reached.
    """
    module = optuna()
    ours = [d.replace("ise", "ize") for d in directions]
    try:
        with storage_errors(folder):
            storage = _journal(module, folder, writing=writing) if url is None else _database(module, url)
            name = NAME if url is None else str(folder.resolve())
            with quiet():
                return module.create_study(storage=storage, study_name=name, directions=ours, load_if_exists=True)
    except (ValueError, KeyError, json.JSONDecodeError) as error:
        raise StorageError(f"{folder / JOURNAL} cannot be read: {error}", hint="give another work dir") from error


def _journal(module: Any, folder: Path, *, writing: bool) -> Any:
    path = folder / JOURNAL
    if writing:
        _drop_half_line(path)
    journal = module.storages.journal
    with quiet():
        return module.storages.JournalStorage(journal.JournalFileBackend(str(path), _Held()))


class _Held:
    """Stands for the journal's own lock: the work dir's is held already, and costs nothing per entry."""

    def acquire(self) -> bool:
        """Nothing to wait for."""
        return True

    def release(self) -> None:
        """Nothing to give back."""


def _drop_half_line(path: Path) -> None:
    """Cut off what a process that was killed while it wrote left behind the last complete line."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _database(module: Any, url: str) -> Any:
    try:
        return module.storages.RDBStorage(url)
    except Exception as error:  # any driver's own
        raise _unreachable(error, "check 'storage' in the task") from error


@contextmanager
def reachable(url: str | None) -> Iterator[None]:
    """Say in one line that the database of a study at ``url`` is locked or gone.

    Raises:
        StorageError: it is.
    """
    try:
        yield
    except Exception as error:
        module = type(error).__module__
        if url is None or not module.startswith(("sqlalchemy.", "optuna.exceptions")):
            raise
        # Optuna's own error only says that there was one.
        cause = error.__cause__ or error
        raise _unreachable(cause, "every trial that has ended is kept: run the same command again") from error


def _unreachable(error: BaseException, hint: str) -> StorageError:
    # What SQLAlchemy adds of its statement is for those who wrote it.
    text = " ".join(str(error).partition("[SQL:")[0].split())[:300]
    return StorageError(f"cannot reach the study's database: {text}", hint=hint)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's notes about what is experimental in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
