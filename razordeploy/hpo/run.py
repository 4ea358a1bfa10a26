"""Running a study in a work dir, and going on with one: what the command line and Python share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from razordeploy.errors import UsageError
from razordeploy.hpo.page import write_page
from razordeploy.hpo.records import STATE, TASK, StudyRecord, read_study
from razordeploy.hpo.storage import reachable
from razordeploy.hpo.study import ASKED, Listener, Study
from razordeploy.hpo.task import HpoTask, load_task
from razordeploy.hpo.trial import TrialResult
from razordeploy.storage import atomic_write
from razordeploy.strict_json import json_text
from razordeploy.workdir import WorkDir

SUMMARY, COPY = "best.json", "task.yaml"
_PAGE_EVERY_S = 20.0


def run_study(
    task: HpoTask,
    folder: Path,
    *,
    function: Callable[..., Any] | None = None,
    listener: Listener | None = None,
) -> StudyRecord:
    """Run ``task`` in ``folder``; a study that lies there already goes on.

    The folder gets ``study.html``, ``best.json`` and one folder per trial.

    Args:
        task: the checked task.
        folder: the work dir.
        function: a Python objective, instead of the task's command.
        listener: called with the number and the result of every trial that ends.

    Raises:
        StorageError: a live run holds the folder, or its database is locked or gone.
        UsageError: the folder holds a study of another task, or the command does not exist.
        RecipeError: no trial tells the reward.
        MissingDependency: Optuna or the executor's package is not installed.
    """
    page = _Page(folder, listener)
    with WorkDir(folder), reachable(task.storage):
        study = Study(task, folder, function=function, listener=page)
        atomic_write(folder / TASK, json_text({"rewards": dict(task.rewards), "searcher": task.searcher}))
        if task.text is not None:
            atomic_write(folder / COPY, task.text)
        try:
            study.run()
        finally:
            try:
                study.close()
            finally:
                record = _keep(folder, ended=True)
    return record


def _keep(folder: Path, *, ended: bool = False) -> StudyRecord:
    record = read_study(folder, ended=ended)
    best = [{"trial": t.number, "values": t.values, "params": t.params} for t in record.best]
    atomic_write(folder / SUMMARY, json_text({"best": best, "rewards": record.rewards, "counts": record.counts()}))
    write_page(record)
    return record


class _Page:
    """Passes results on, and renews the page now and then."""

    def __init__(self, folder: Path, listener: Listener | None) -> None:
        self._folder = folder
        self._listener = listener
        self._last = time.monotonic()

    def __call__(self, number: int, result: TrialResult) -> None:
        if self._listener is not None:
            self._listener(number, result)
        if time.monotonic() - self._last > _PAGE_EVERY_S:
            self._last = time.monotonic()
            _keep(self._folder)


def resumable(folder: Path) -> HpoTask:
    """The task of the study in ``folder``.

    Raises:
        UsageError: there is no study, or one of a Python function.
    """
    if not (folder / STATE).exists():
        hint = "give the work dir of 'razordeploy hpo run'"
        raise UsageError(f"expected a study at {folder}, found no {STATE}", hint=hint)
    path = folder / COPY
    if not path.exists():
        raise UsageError(
            f"the study at {folder} calls a Python function", hint="call optimize() again with its work_dir"
        )
    return load_task(path)


def ask_to_stop(folder: Path, *, now: bool) -> None:
    """Tell the run in ``folder`` to start no more trials; with ``now`` to end those that run too.

    Raises:
        UsageError: nothing runs there.
    """
    record = read_study(folder)
    if record.status != "running":
        raise UsageError(f"no run to stop at {folder}: the study has ended ({record.status})")
    atomic_write(folder / ASKED, "now" if now else "after the running trials")
