"""``razordeploy run``: the stages of a recipe, one after the other."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from razordeploy.cli.signals import Signalled, raise_on_signals
from razordeploy.cli.stages.job import StageJob, StageResult
from razordeploy.cli.stages.plan import Plan, Step, blocking, print_plan
from razordeploy.cli.stages.report import write_run_report
from razordeploy.cli.stages.state import Done, State
from razordeploy.cli.stages.table import stage_function
from razordeploy.environment import versions
from razordeploy.errors import RazorDeployError, UsageError, nearest
from razordeploy.workdir import WorkDir

SCRATCH = ".scratch"
_KEY = ".key"


def run(
    recipe_path: str,
    *,
    work_dir: Path | None,
    overrides: Mapping[str, str],
    dry_run: bool,
    start: str | None,
    until: str | None,
    command: Sequence[str],
) -> int:
    """Run the recipe's pipeline and return the worst exit code of its stages.

    Stages whose recipe, parents and files are what they were are not run again.

    Args:
        recipe_path: a recipe with a ``pipeline`` section.
        work_dir: default: the recipe's, or ``work_dirs/<recipe>``.
        overrides: dotted key -> value, for every stage that has no recipe of its own.
        dry_run: check and print the plan only.
        start: name of the stage to begin with, done or not.
        until: name of the last stage to run.
        command: what the user typed.
    """
    plan = Plan.read(recipe_path, overrides, work_dir)
    names = [step.config.name for step in plan.steps]
    for option, name in (("--from", start), ("--until", until)):
        if name is not None and name not in names:
            raise UsageError(f"{option}: no stage is called '{name}'", hint=nearest(name, names))
    first = 0 if start is None else names.index(start)
    last = len(names) - 1 if until is None else names.index(until)
    if last < first:
        raise UsageError(f"--until {until} comes before --from {start}")
    problems = plan.check(plan.steps[: last + 1])
    if dry_run:
        print_plan(plan, State.read(plan.folder), first if start else None, last, problems)
        return max((error.exit_code for error in problems), default=0)
    in_the_way = blocking(plan.steps[: last + 1], problems)
    if in_the_way:
        raise in_the_way[0]
    with WorkDir(plan.folder) as work:
        work.require_free(plan.bytes_needed())
        state = State.read(work.path)
        state.done = {name: done for name, done in state.done.items() if name in names}
        state.about = {
            "recipe": str(plan.recipe.path),
            "seed": plan.recipe.seed,
            "command": shlex.join(command),
            "versions": versions(("openvino", "onnxruntime", "onnx", "mmengine")),
        }
        runner = _Runner(plan, state, work.path, _resuming(command))
        return runner.run(first, last, forced=start is not None)


def _resuming(command: Sequence[str]) -> str:
    """The command without ``--from``: it goes on where the last one ended."""
    words: list[str] = []
    skip = False
    for word in command:
        if not skip and word != "--from" and not word.startswith("--from="):
            words.append(word)
        skip = word == "--from"
    return shlex.join(words)


class _Runner:
    """Runs steps, and notes each in the state."""

    def __init__(self, plan: Plan, state: State, folder: Path, command: str) -> None:
        self.plan = plan
        self.state = state
        self.folder = folder
        self.command = command
        self.console = Console(stderr=True)

    def run(self, first: int, last: int, *, forced: bool) -> int:
        steps = self.plan.steps[: last + 1]
        for index, step in enumerate(steps):
            name = step.config.name
            kept = self.state.is_current(name, step.key(self.state))
            if index < first and not kept:
                raise UsageError(
                    f"--from {steps[first].config.name}: the stage '{name}' before it is not done or has changed",
                    hint=f"--from {name}",
                )
            if kept and not (forced and index >= first):
                self._say(index, step, f"kept, {self.folder / name}")
                continue
            self._say(index, step, "")
            code = self._step(step, fresh=forced and index >= first)
            if code is not None:
                self._report()
                return code
        return self._report()

    def _step(self, step: Step, *, fresh: bool) -> int | None:
        """Run one stage; an exit code where the pipeline ends with it."""
        name = step.config.name
        key, begin = step.key(self.state), time.perf_counter()
        job = self._job(step, key, fresh)
        try:
            with raise_on_signals():
                result = stage_function(step.config.stage)(job)
        except RazorDeployError as error:
            self._note(step, key, StageResult(artifacts={}), begin, str(error))
            print(f"error: stage '{name}': {error}; go on with: {self.command}", file=sys.stderr)
            return error.exit_code
        except (Signalled, KeyboardInterrupt) as end:
            print(f"interrupted in the stage '{name}'; resume with: {self.command}", file=sys.stderr)
            return end.exit_code if isinstance(end, Signalled) else 130
        if result.exit_code >= 128:
            return result.exit_code
        self._note(step, key, result, begin, None)
        if result.exit_code >= 2 and not result.artifacts:
            print(f"error: the stage '{name}' made nothing; go on with: {self.command}", file=sys.stderr)
            return result.exit_code
        return None

    def _job(self, step: Step, key: str, fresh: bool) -> StageJob:
        config, scratch = step.config, self.folder / SCRATCH / step.config.name
        mark = scratch / _KEY
        resume = mark.is_file() and mark.read_text() == key and not fresh
        if not resume and scratch.exists():
            shutil.rmtree(scratch)
        scratch.mkdir(parents=True, exist_ok=True)
        mark.write_text(key)
        recipe, overrides = step.recipe_of(self.state, self.folder)
        return StageJob(
            config=config,
            recipe=recipe,
            overrides=overrides,
            folder=self.folder / config.name,
            scratch=scratch,
            parent=None if config.source is None else self.state.model_of(config.source).id,
            goes_on=config.source is not None and config.model is None,
            resume=resume,
            command=self.command,
        )

    def _note(self, step: Step, key: str, result: StageResult, begin: float, error: str | None) -> None:
        self.state.done[step.config.name] = Done(
            stage=step.config.stage,
            key=key,
            source=step.config.source,
            exit_code=result.exit_code,
            seconds=time.perf_counter() - begin,
            artifacts={str(p.relative_to(self.folder)): self.state.entry(p) for p in result.artifacts.values()},
            figures=result.figures,
            error=error,
        )
        self.state.write()

    def _report(self) -> int:
        """Write what all stages have come to; the worst exit code of those that ran."""
        return write_run_report(self.plan, self.state, self.folder)

    def _say(self, index: int, step: Step, what: str) -> None:
        text = f"[{index + 1}/{len(self.plan.steps)}] {step.config.name} ({step.config.stage})"
        self.console.print(f"{text}: {what}" if what else text, markup=False, soft_wrap=True, style="bold")
