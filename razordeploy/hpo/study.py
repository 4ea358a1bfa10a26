"""The study: asks for values, hands trials to an executor, takes what comes back, and ends by one of its criteria.

Whatever dies, nothing that ended is lost and nothing counts twice: a trial's end is its ``result.json``, written at
once by the worker; the storage is told of it exactly while it still says that the trial runs. A trial that had not
ended when the study was killed runs again under its own number, with its own values.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

from razordeploy.errors import MissingDependency, RecipeError, StorageError, TaskTimeout, UsageError
from razordeploy.executors.base import TaskExecutor
from razordeploy.executors.build import build_executor
from razordeploy.hpo.assessors import Assessor, build_assessor
from razordeploy.hpo.command import render
from razordeploy.hpo.follow import json_lines
from razordeploy.hpo.records import STATE, TRIALS
from razordeploy.hpo.searchers import Searcher, trial_seed
from razordeploy.hpo.storage import open_study, optuna, quiet
from razordeploy.hpo.task import HpoTask
from razordeploy.hpo.trial import (
    AGAIN,
    METRICS,
    STOP,
    TrialResult,
    TrialSpec,
    prepare_folder,
    read_result,
    run_function,
    run_trial,
    write_result,
)
from razordeploy.storage import atomic_write
from razordeploy.strict_json import json_text

ASKED = "stop"
_TICK_S = 0.05
_SAVE_EVERY_S = 1.0
_SILENT_TRIALS = 3
"""So many trials that end well without a reward, and no other, are a mistake in the task."""

Listener = Callable[[int, TrialResult], None]


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial keeps its files."""
    return folder / TRIALS / f"{number:05d}"


class Study:
    """One study in one work dir, whose lock the caller holds."""

    def __init__(
        self,
        task: HpoTask,
        folder: Path,
        *,
        function: Callable[..., Any] | None = None,
        cwd: Path | None = None,
        listener: Listener | None = None,
    ) -> None:
        self._task = task
        self._folder = folder.resolve()
        self._function = function
        self._listener = listener
        self._state = _State.load(self._folder, task, cwd or Path.cwd())
        self._searcher = Searcher(task)
        self._study = open_study(self._folder, list(task.rewards.values()), task.storage, writing=True)
        self._running: dict[Future[TrialResult], int] = {}
        self._values: dict[int, list[float]] = {}
        self._offsets: dict[Path, int] = {}
        self._reward = next(iter(task.rewards))
        self._maximise = task.rewards[self._reward] == "maximise"
        self._assessor: Assessor | None = build_assessor(task.assessor, task.assessor_options, maximise=self._maximise)
        self._silent = self._ended = self._good = 0
        self._reached = False
        (self._folder / ASKED).unlink(missing_ok=True)
        self._state.save(status="running")

    def close(self) -> None:
        """Note how long it ran, also where it was interrupted."""
        self._state.save(status=self._state.status)

    def run(self) -> str:
        """Run until a stop criterion holds; returns which: a key of ``stop_criterion``, ``exhausted`` or ``asked``.

        Raises:
            UsageError: the command does not exist.
            RecipeError: no trial tells the reward.
            MissingDependency: the executor's package is not installed.
        """
        config = self._task.executor
        if self._function is not None and self._task.stop.time_limits_per_job is not None:
            config = dataclasses.replace(config, timeout_s=self._task.stop.time_limits_per_job)
        pending = self._take_up()
        with build_executor(config, folder=self._folder / "jobs") as executor:
            try:
                reason = self._loop(executor, pending)
            except BaseException:
                self._ask_running(AGAIN)
                raise
            if reason in ("time_limits", "max_reward", "asked now"):
                self._cancel(executor, "asked" if reason.startswith("asked") else reason)
        self._state.save(status=reason.split()[0])
        if self._ended and not self._good and self._silent == self._ended:
            raise self._no_reward()
        return reason.split()[0]

    def _loop(self, executor: TaskExecutor, pending: list[int]) -> str:
        started = saved = time.monotonic()
        before = self._state.elapsed_s
        while True:
            now = time.monotonic()
            self._state.elapsed_s = before + now - started
            if now - saved > _SAVE_EVERY_S:
                self._state.save(status="running")
                saved = now
            why = self._why_stop(pending)
            if why in ("time_limits", "max_reward", "asked now") or (why and not self._running):
                return why
            if not why and len(self._running) < executor.max_parallel:
                self._start(executor, pending)
                if executor.max_parallel > len(self._running) and not self._why_stop(pending):
                    self._collect(timeout=0)
                    continue
            self._collect(timeout=_TICK_S)

    def _why_stop(self, pending: Sequence[int]) -> str | None:
        """Why no further trial starts; None: one may."""
        stop = self._task.stop
        asked = _asked(self._folder)
        if asked:
            return asked
        if self._reached:
            return "max_reward"
        if stop.time_limits is not None and self._state.elapsed_s >= stop.time_limits:
            return "time_limits"
        if self._silent >= _SILENT_TRIALS and self._silent == self._ended:
            return "silent"
        if pending:
            return None
        count = self._count()
        if stop.max_tries is not None and count >= stop.max_tries:
            return "max_tries"
        if self._searcher.count is not None and count >= self._searcher.count:
            return "exhausted"
        return None

    def _count(self) -> int:
        return len(self._study.get_trials(deepcopy=False))

    def _take_up(self) -> list[int]:
        """Tell the storage what ended while nobody listened; returns the trials that have to run again."""
        pending = []
        for trial in self._study.get_trials(deepcopy=False):
            folder = trial_folder(self._folder, trial.number)
            if trial.state.is_finished():
                self._note(trial.number, read_result(folder))
                continue
            result = read_result(folder)
            if result is None:
                pending.append(trial.number)
            else:
                self._tell(trial.number, result)
        return pending

    def _start(self, executor: TaskExecutor, pending: list[int]) -> None:
        if pending:
            number = pending.pop(0)
            trial_id = self._study.get_trials(deepcopy=False)[number]._trial_id
            values = self._searcher.values(self._study, trial_id, number)
        else:
            number = self._count()
            _, values = self._searcher.ask(self._study, number)
        spec = self._spec(number, values)
        prepare_folder(spec)
        self._values[number] = []
        self._offsets.pop(Path(spec.folder) / METRICS, None)
        if self._function is None:
            future = executor.submit(run_trial, spec)
        else:
            future = executor.submit(run_function, self._function, spec)
        self._running[future] = number

    def _spec(self, number: int, values: Mapping[str, Any]) -> TrialSpec:
        task = self._task
        folder = trial_folder(self._folder, number)
        seed = trial_seed(task.seed, number)
        fixed = {"trial": str(number), "trial_dir": str(folder), "seed": str(seed), "python": sys.executable}
        spec = TrialSpec(
            number=number,
            folder=str(folder),
            rewards=tuple(task.rewards),
            seed=seed,
            values=values,
            env=task.env,
            accept=task.accept,
            cwd=self._state.cwd,
            timeout_s=task.stop.time_limits_per_job,
            keep_log=task.generate_log,
        )
        if task.template is None:
            return spec
        command = render(task.template, task.args, values, fixed)
        if number == 0 or not self._ended:
            self._check_command(command.words[0])
        return dataclasses.replace(
            spec,
            words=command.words,
            files=command.files,
            result=_filled(task.result, fixed),
            metrics=_filled(task.metrics, fixed),
        )

    def _check_command(self, word: str) -> None:
        if self._task.executor.type in ("ray", "slurm"):
            return  # another machine's PATH
        found = shutil.which(str(Path(self._state.cwd) / word) if "/" in word else word)
        if found is None:
            place = f"at {Path(self._state.cwd) / word}" if "/" in word else "on the PATH"
            raise UsageError(f"task.template starts with '{word}', and there is no such command {place}")

    def _collect(self, timeout: float) -> None:
        if not self._running:
            time.sleep(timeout)
            return
        done, _ = wait(self._running, timeout=timeout, return_when=FIRST_COMPLETED)
        self._assess([number for future, number in self._running.items() if future not in done])
        for future in sorted(done, key=lambda f: self._running[f]):
            self._take(future, self._running.pop(future))

    def _take(self, future: Future[TrialResult], number: int) -> None:
        folder = trial_folder(self._folder, number)
        # What the worker wrote counts, also where the worker died right after.
        result = read_result(folder)
        if result is None:
            error = future.exception()
            if isinstance(error, MissingDependency):
                raise error
            status = "timeout" if isinstance(error, TaskTimeout) else "failed"
            result = write_result(folder, TrialResult(status=status, reason=str(error or "no result was written")))
        self._tell(number, result)

    def _tell(self, number: int, result: TrialResult) -> None:
        states = optuna().trial.TrialState
        with quiet():
            if result.status == "complete":
                self._study.tell(number, [result.values[name] for name in self._task.rewards])
            elif result.status == "stopped" and self._reward in result.values and len(self._task.rewards) == 1:
                trial = self._study.get_trials(deepcopy=False)[number]
                # Samplers learn from the last value of a trial that was stopped.
                value, step = result.values[self._reward], max(1, result.steps)
                self._study._storage.set_trial_intermediate_value(trial._trial_id, step, value)
                self._study.tell(number, state=states.PRUNED)
            else:
                self._study.tell(number, state=states.FAIL)
        self._note(number, result)
        if self._listener is not None:
            self._listener(number, result)

    def _note(self, number: int, result: TrialResult | None) -> None:
        if result is None:
            return
        self._ended += 1
        self._silent += result.silent
        if result.status == "complete":
            self._good += 1
            if self._assessor is not None:
                self._assessor.ended(self._history(number))
            target = self._task.stop.max_reward
            if target is not None:
                value = result.values[self._reward]
                self._reached |= value >= target if self._maximise else value <= target

    def _history(self, number: int) -> list[float]:
        known = self._values.setdefault(number, [])
        for line in json_lines(trial_folder(self._folder, number) / METRICS, self._offsets):
            value = line.get("values", {}).get(self._reward)
            if value is not None:
                known.append(float(value))
        return known

    def _assess(self, numbers: Sequence[int]) -> None:
        if self._assessor is None:
            return
        for number in numbers:
            before = len(self._values.get(number, ()))
            values = self._history(number)
            # Each step is judged by itself, also where several came at once.
            for step in range(before + 1, len(values) + 1):
                why = self._assessor.stop(number, values[:step])
                if why is not None:
                    atomic_write(trial_folder(self._folder, number) / STOP, f"stopped {why}")
                    break

    def _cancel(self, executor: TaskExecutor, reason: str) -> None:
        """End what runs. Asked for by hand: it will run again; otherwise the study is over without it."""
        self._ask_running(AGAIN if reason == "asked" else f"cancelled the study ended: {reason}")
        if reason != "asked":
            wait(self._running, timeout=5.0)
        executor.kill()
        for number in self._running.values():
            ended = read_result(trial_folder(self._folder, number))
            if ended is None and reason == "asked":
                continue
            if ended is None:
                ended = TrialResult(status="cancelled", reason=f"the study ended: {reason}")
                write_result(trial_folder(self._folder, number), ended)
            self._tell(number, ended)
        self._running.clear()

    def _ask_running(self, what: str) -> None:
        for future, number in self._running.items():
            if not future.done():
                with suppress(OSError, StorageError):
                    atomic_write(trial_folder(self._folder, number) / STOP, what)

    def _no_reward(self) -> RecipeError:
        where = (
            f"in {self._task.result}" if self._task.result else 'as a JSON line such as {"' + self._reward + '": 0.9}'
        )
        log = trial_folder(self._folder, 0) / "log.txt"
        return RecipeError(
            f"{self._ended} trials ended well and none told the reward '{self._reward}' {where}",
            hint=f"see what they printed: {log}" if log.exists() else "let the command print it",
        )


@dataclasses.dataclass
class _State:
    """What the study knows besides its trials; ``study.json``."""

    folder: Path
    fingerprint: str
    cwd: str
    elapsed_s: float = 0.0
    status: str = "running"

    @classmethod
    def load(cls, folder: Path, task: HpoTask, cwd: Path) -> _State:
        path = folder / STATE
        if not path.exists():
            return cls(folder, task.fingerprint(), str(cwd.resolve()))
        found = json.loads(path.read_text())
        if found["fingerprint"] != task.fingerprint():
            raise UsageError(
                f"{folder} holds a study of another task: its template, search_args, searcher, seed or rewards differ",
                hint="give another --work-dir, or go on with that one: razordeploy hpo ctl resume",
            )
        return cls(folder, found["fingerprint"], found["cwd"], found["elapsed_s"])

    def save(self, *, status: str) -> None:
        """Write it."""
        self.status = status
        content = {
            "status": status,
            "fingerprint": self.fingerprint,
            "cwd": self.cwd,
            "elapsed_s": round(self.elapsed_s, 3),
        }
        atomic_write(self.folder / STATE, json_text(content))


def _asked(folder: Path) -> str | None:
    try:
        return "asked now" if (folder / ASKED).read_text().strip() == "now" else "asked"
    except FileNotFoundError:
        return None


def _filled(text: str | None, fixed: Mapping[str, str]) -> str | None:
    """Fields of a path; braces that are none of the reserved fields stay."""
    for name, value in fixed.items():
        text = None if text is None else text.replace(f"{{{name}}}", value)
    return text
