"""A study as its folder tells it: every trial with what became of it. Needs neither Optuna nor the study's process."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from razordeploy.errors import UsageError
from razordeploy.hpo.args import leaves
from razordeploy.hpo.follow import json_lines
from razordeploy.hpo.trial import METRICS, TRIAL, read_result
from razordeploy.workdir import LOCK

STATE, TRIALS, TASK = "study.json", "trials", "task.json"


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial."""

    number: int
    status: str
    """``running``, ``complete``, ``failed``, ``timeout``, ``stopped``, ``cancelled``; ``lost``: was running when the
    study ended, and runs again when it goes on."""
    params: Mapping[str, Any]
    values: Mapping[str, float]
    """Last value of each reward so far."""
    reason: str | None = None
    seconds: float | None = None
    steps: int = 0


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """One study."""

    folder: Path
    status: str
    """``running``, or why it ended: a key of ``stop_criterion``, ``exhausted``, ``asked``, ``interrupted``."""
    rewards: Mapping[str, str]
    """Reward -> ``maximise`` or ``minimise``."""
    trials: Sequence[TrialRecord]
    elapsed_s: float
    searcher: str

    @property
    def complete(self) -> list[TrialRecord]:
        """Trials that ran to their end."""
        return [trial for trial in self.trials if trial.status == "complete"]

    @property
    def best(self) -> list[TrialRecord]:
        """The best trial; of several rewards the front: those that no other trial beats in all. Empty: none ended."""
        return front(self.complete, self.rewards)

    def counts(self) -> dict[str, int]:
        """Status -> trials."""
        found: dict[str, int] = {}
        for trial in self.trials:
            found[trial.status] = found.get(trial.status, 0) + 1
        return found


def front(trials: Sequence[TrialRecord], rewards: Mapping[str, str]) -> list[TrialRecord]:
    """Trials that no other one beats: at least as good in every reward and better in one; the first of equals."""
    signs = {name: 1.0 if mode == "maximise" else -1.0 for name, mode in rewards.items()}
    points = [tuple(sign * trial.values[name] for name, sign in signs.items()) for trial in trials]

    def beaten(index: int) -> bool:
        own = points[index]
        return any(
            all(a >= b for a, b in zip(other, own, strict=True)) and (other != own or place < index)
            for place, other in enumerate(points)
            if place != index
        )

    return [trial for index, trial in enumerate(trials) if not beaten(index)]


def read_study(folder: Path, *, ended: bool = False) -> StudyRecord:
    """Read the study in ``folder``.

    Args:
        folder: the work dir.
        ended: the run that holds the folder is this one, and nothing of it runs any more.

    Raises:
        UsageError: there is none.
    """
    try:
        state = json.loads((folder / STATE).read_text())
        task = json.loads((folder / TASK).read_text())
    except FileNotFoundError as error:
        hint = "give the work dir of 'razordeploy hpo run'"
        raise UsageError(f"expected a study at {folder}, found no {Path(error.filename).name}", hint=hint) from error
    live = not ended and is_live(folder)
    folders = sorted(path for path in (folder / TRIALS).glob("[0-9]*") if path.is_dir())
    trials = [record for path in folders if (record := _trial(path, live=live)) is not None]
    status = state["status"] if live or state["status"] != "running" else "interrupted"
    return StudyRecord(
        folder=folder,
        status="running" if live else status,
        rewards=task["rewards"],
        trials=trials,
        elapsed_s=state["elapsed_s"],
        searcher=task["searcher"],
    )


def _trial(folder: Path, *, live: bool) -> TrialRecord | None:
    try:
        given = json.loads((folder / TRIAL).read_text())
    except FileNotFoundError:
        return None
    params = {key: item for name, value in given["params"].items() for key, item in leaves(value, name)}
    result = read_result(folder)
    if result is not None:
        return TrialRecord(
            number=given["number"],
            status=result.status,
            params=params,
            values=dict(result.values),
            reason=result.reason,
            seconds=result.seconds,
            steps=result.steps,
        )
    lines = json_lines(folder / METRICS, {})
    values: dict[str, float] = {}
    for line in lines:
        values.update(line.get("values", {}))
    status = "running" if live else "lost"
    return TrialRecord(number=given["number"], status=status, params=params, values=values, steps=len(lines))


def is_live(folder: Path) -> bool:
    """Tell whether a process runs the study: the one that the lock file names, if it is of this machine."""
    try:
        holder = json.loads((folder / LOCK).read_text())
    except (OSError, ValueError):
        return False
    if holder.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(holder["pid"]), 0)
    except (ProcessLookupError, KeyError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def curve(folder: Path, number: int, reward: str) -> list[float]:
    """Every value of ``reward`` that a trial reported, in order."""
    lines = json_lines(folder / TRIALS / f"{number:05d}" / METRICS, {})
    return [float(line["values"][reward]) for line in lines if reward in line.get("values", {})]
