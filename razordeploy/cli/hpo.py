"""``razordeploy hpo``: what its verbs do."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from razordeploy.cli.signals import Signalled, raise_on_signals
from razordeploy.errors import UsageError
from razordeploy.hpo.page import PAGE
from razordeploy.hpo.records import StudyRecord, TrialRecord, read_study
from razordeploy.hpo.run import ask_to_stop, resumable, run_study
from razordeploy.hpo.task import HpoTask, load_task
from razordeploy.hpo.trial import TrialResult
from razordeploy.report.wording import plain, significant
from razordeploy.storage import atomic_write

_TASK = "hpo.yaml"
_EXAMPLE = "objective.py"
_STARTER = """\
# A study: razordeploy hpo run hpo.yaml
task:
  # The command of one trial. {name} is the value of a search arg; {trial}, {trial_dir}, {seed} and {python} are given.
  # It prints JSON lines that hold the reward: {"step": 1, "top1": 71.3}; the last one counts.
  template: "{python} objective.py --lr {lr} --width {width} {optimizer}"
  # result: "{trial_dir}/report.json"          # or: a JSON file that holds the reward at the end
  # metrics: "{trial_dir}/*/vis_data/*.json"   # or: files that get a JSON line per step

search_args:
  lr: {type: Real, low: 1e-4, high: 1.0, log: true}
  width: {type: Int, low: 8, high: 64, step: 8}
  optimizer:
    type: Nested
    options:
      sgd: {text: "--momentum {momentum}", args: {momentum: {type: Real, low: 0.0, high: 0.99}}}
      adam: {text: "--adam"}
  # size: {type: Categorical, values: [small, large]}
  # config: {type: File, template: config.py.in}   # its {name} fields are filled; {config} is the path

reward_attribute: top1        # a list searches a front; dotted names reach into JSON
mode: maximise                # or minimise

searcher: TPE                 # Grid, Batch, Random, Skopt (Gaussian process), Evolution, TPE

assessor: {type: MedianStop, start_step: 5}   # or {type: CurveFitting, epoch_num: 10}

scheduler:
  parallel_size: 2
  stop_criterion:
    max_tries: 20
    # time_limits: 2h
    # max_reward: 99.0
    time_limits_per_job: 10m

executor: local               # inline, ray or slurm; {type: local, gpus: 1} gives each trial a GPU

generate_log: true            # keep what each trial prints
seed: 0
"""
_OBJECTIVE = '''\
"""A stand-in for a training: its accuracy grows with every step towards an end that depends on the options."""

import argparse
import json
import math

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--width", type=int, required=True)
parser.add_argument("--momentum", type=float, default=0.9)
parser.add_argument("--adam", action="store_true")
options = parser.parse_args()

best_lr = 0.003 if options.adam else 0.05
end = 95 - 6 * abs(math.log10(options.lr / best_lr)) - 40 / options.width - 5 * abs(options.momentum - 0.9)
for step in range(1, 11):
    print(json.dumps({"step": step, "top1": end * (1 - math.exp(-step / 2))}), flush=True)
'''


def init(folder: Path, *, force: bool) -> None:
    """Write the starter files.

    Raises:
        UsageError: one of them is there already.
    """
    for name in (_TASK, _EXAMPLE):
        if (folder / name).exists() and not force:
            raise UsageError(f"{folder / name} exists", hint="give another folder, or --force")
    for name, text in ((_TASK, _STARTER), (_EXAMPLE, _OBJECTIVE)):
        print(f"wrote {atomic_write(folder / name, text)}")
    where = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    print(f"next: {where}razordeploy hpo run {_TASK}")


def run(path: Path, folder: Path, *, overrides: Mapping[str, str], command: str) -> int:
    """Run the task file ``path`` in ``folder``; returns the exit code."""
    return _search(load_task(path, overrides), folder, command)


def resume(folder: Path, *, overrides: Mapping[str, str]) -> int:
    """Go on with the study in ``folder``."""
    task = resumable(folder)
    if overrides and task.path is not None:
        task = load_task(task.path, overrides)
    return _search(task, folder, _resume_command(folder))


def _resume_command(folder: Path) -> str:
    return shlex.join(["razordeploy", "hpo", "ctl", "resume", str(folder)])


def _search(task: HpoTask, folder: Path, command: str) -> int:
    console = Console(stderr=True)

    def tell(number: int, result: TrialResult) -> None:
        values = ", ".join(f"{name} {significant(value)}" for name, value in result.values.items())
        reason = f" ({plain(result.reason)})" if result.reason and result.status != "complete" else ""
        line = f"trial {number}: {result.status} {values}{reason}, {result.seconds:.1f} s"
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    try:
        with raise_on_signals():
            record = run_study(task, folder, listener=tell)
    except (Signalled, KeyboardInterrupt) as end:
        print(f"interrupted; resume with: {_resume_command(folder)}", file=sys.stderr)
        return end.exit_code if isinstance(end, Signalled) else 130
    _print(record, most=10)
    if record.complete:
        return 0
    reasons = [trial.reason for trial in record.trials if trial.reason]
    first = f"; the first: {plain(reasons[0])}" if reasons else ""
    print(f"error: none of {len(record.trials)} trials ran to its end{first}", file=sys.stderr)
    return 1


def show(folder: Path, *, json_output: bool, most: int) -> None:
    """Print the study in ``folder``."""
    record = read_study(folder)
    if not json_output:
        _print(record, most=most)
        return
    content: dict[str, Any] = {**asdict(record), "folder": str(folder), "counts": record.counts()}
    content["best"] = [asdict(trial) for trial in record.best]
    print(json.dumps(content, indent=2, default=str))


def stop(folder: Path, *, now: bool) -> None:
    """Ask the run in ``folder`` to end."""
    ask_to_stop(folder, now=now)
    print(f"asked to stop {'now' if now else 'after the running trials'}; go on with: {_resume_command(folder)}")


def _print(record: StudyRecord, *, most: int) -> None:
    console = Console()
    columns = list(dict.fromkeys(key for trial in record.trials for key in trial.params))
    table = Table(box=box.SIMPLE_HEAD)
    for header in ("trial", "state", *record.rewards, *columns, "s"):
        table.add_column(escape(header), overflow="fold")
    best = {trial.number for trial in record.best}
    # The latest ones, and the best wherever they are.
    shown = [t for t in record.trials if t.number in best or t in record.trials[-most:]]
    for trial in shown:
        table.add_row(*map(escape, _cells(trial, record, columns)), style="bold" if trial.number in best else None)
    console.print(table)
    counts = ", ".join(f"{count} {status}" for status, count in record.counts().items()) or "no trial"
    console.print(f"{counts}; {record.elapsed_s:.1f} s; {record.status}", markup=False)
    for trial in record.best[:5]:
        values = ", ".join(f"{name} {significant(value)}" for name, value in trial.values.items())
        params = " ".join(f"{name}={value}" for name, value in trial.params.items())
        console.print(f"best: trial {trial.number}: {values}: {params}", markup=False, highlight=False, soft_wrap=True)
    if (record.folder / PAGE).exists():
        console.print(f"page: {record.folder / PAGE}", markup=False, highlight=False, soft_wrap=True)


def _cells(trial: TrialRecord, record: StudyRecord, columns: list[str]) -> list[str]:
    numbers = [significant(trial.values.get(name)) for name in record.rewards]
    params = [_cell(trial.params.get(name)) for name in columns]
    seconds = "-" if trial.seconds is None else f"{trial.seconds:.1f}"
    return [str(trial.number), trial.status, *numbers, *params, seconds]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return significant(value) if isinstance(value, float) else plain(value)
