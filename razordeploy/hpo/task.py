"""The task file: what runs, what is searched, how, where, and until when."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from razordeploy.config.executor import ExecutorConfig
from razordeploy.config.strict import Section
from razordeploy.errors import RecipeError, UsageError, nearest
from razordeploy.hpo.args import Arg, File, parse_args
from razordeploy.hpo.command import check_template

SEARCHERS = {
    "Grid": (),
    "Batch": ("configs",),
    "Random": (),
    "Skopt": ("startup_trials",),
    "Evolution": ("population_size",),
    "TPE": ("startup_trials", "multivariate"),
}
"""Searcher -> keys that only it has."""
ASSESSORS = {
    "MedianStop": ("start_step", "min_trials"),
    "CurveFitting": ("start_step", "epoch_num", "threshold", "gap"),
}
_MODES = {
    **dict.fromkeys(("maximise", "maximize", "max"), "maximise"),
    **dict.fromkeys(("minimise", "minimize", "min"), "minimise"),
}
_TOP = ("task", "search_args", "searcher", "reward_attribute", "mode", "scheduler", "assessor", "executor")
_REST = ("generate_log", "seed", "storage")
_TASK = ("template", "result", "metrics", "env", "accept")
_STOP = ("max_tries", "time_limits", "max_reward", "time_limits_per_job")
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?")
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True)
class StopCriterion:
    """When a study ends; the first that holds."""

    max_tries: int | None = None
    """Trials that are started, whatever becomes of them."""
    time_limits: float | None = None
    """Seconds of running, over all resumes; trials that run then are ended."""
    max_reward: float | None = None
    """The study ends when a reward reaches it (falls to it, where less is better)."""
    time_limits_per_job: float | None = None
    """Seconds after which a trial is ended."""


@dataclass(frozen=True, kw_only=True)
class HpoTask:
    """One study, checked."""

    args: Mapping[str, Arg]
    """Name -> what is searched."""
    rewards: Mapping[str, str]
    """Reward attribute -> ``maximise`` or ``minimise``; several make the search multi-objective."""
    template: str | None = None
    """The command line with ``{}`` fields; None: a Python function is called instead."""
    result: str | None = None
    """A JSON file (fields allowed) that holds the rewards when the command has ended."""
    metrics: str | None = None
    """Files (fields and * allowed) that get a JSON line per step while the command runs; beside its output."""
    env: Mapping[str, str] = field(default_factory=dict)
    accept: tuple[int, ...] = (0,)
    """Exit codes of the command that are no failure."""
    searcher: str = "TPE"
    searcher_options: Mapping[str, Any] = field(default_factory=dict)
    assessor: str | None = None
    assessor_options: Mapping[str, Any] = field(default_factory=dict)
    stop: StopCriterion = field(default_factory=StopCriterion)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    generate_log: bool = True
    """True: what each trial prints is kept in its folder; False: only of those that fail."""
    seed: int = 0
    storage: str | None = None
    """URL of a database that keeps the study (``postgresql://...``); None: a journal file in the work dir."""
    path: Path | None = None
    """The file it was read from."""
    text: str | None = None
    """YAML that ``resume`` reads again, from whichever folder."""

    def fingerprint(self) -> str:
        """Identity of the search: what would make the trials so far useless when it changes."""
        content = [
            *(self.template, self.result, self.metrics, dict(self.rewards), self.searcher, self.seed),
            *(dict(self.searcher_options), {name: repr(arg) for name, arg in self.args.items()}),
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()


def load_task(path: str | Path, overrides: Mapping[str, str] | None = None) -> HpoTask:
    """Read and check a task file.

    Args:
        path: the YAML file.
        overrides: dotted key -> value as YAML (``scheduler.parallel_size=4``).

    Raises:
        UsageError: there is no such file.
        RecipeError: anything in it that is unknown, missing or of the wrong type.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        found = "a folder" if file.is_dir() else "nothing"
        raise UsageError(f"expected a task file at {file}, found {found}", hint="razordeploy hpo init writes one")
    return parse_task(_read(file, overrides or {}), file)


def parse_task(values: object, file: Path) -> HpoTask:
    """Check what a task file holds; ``file`` is for messages and for paths beside it."""
    name = str(file)
    top = Section.of(values, name, "hpo task", (*_TOP, *_REST))
    task = Section.of(top.values.get("task") or {}, name, "task", (*_TASK, "search_args"))
    if "search_args" in top.values and "search_args" in task.values:
        raise RecipeError(f"{name}: search_args stands at the top and in 'task'", hint="keep one")
    args = parse_args(top.values.get("search_args", task.values.get("search_args")) or {}, name)
    template = task.string("template")
    if template is None:
        raise RecipeError(f"{name}: no 'task.template'", hint="write template: python train.py --lr {lr}")
    if not args:
        raise RecipeError(f"{name}: no 'search_args'", hint="write lr: {type: Real, low: 1e-4, high: 1e-1, log: true}")
    check_template(template, args, name)
    rewards = _rewards(top)
    searcher, searcher_options = _named(top, "searcher", SEARCHERS, "TPE")
    assessor, assessor_options = _named(top, "assessor", ASSESSORS, None)
    found = HpoTask(
        args=args,
        rewards=rewards,
        template=template,
        result=task.string("result"),
        metrics=task.string("metrics"),
        env=_env(task),
        accept=_accept(task),
        searcher=searcher or "TPE",
        searcher_options=_searcher_options(searcher_options),
        assessor=assessor,
        assessor_options=_assessor_options(assessor, assessor_options),
        stop=_stop(top),
        executor=_executor(top),
        generate_log=top.boolean("generate_log") is not False,
        seed=top.integer("seed", low=0, high=2**32 - 1) or 0,
        storage=_storage(top),
        path=file,
        text=_text(top.values, args),
    )
    check_task(found, name)
    return found


def check_task(task: HpoTask, file: str) -> None:
    """What concerns several keys together.

    Raises:
        RecipeError: an end that never comes, or what several rewards cannot have.
    """
    stop = task.stop
    listed = task.searcher in ("Grid", "Batch")
    if not listed and stop.max_tries is None and stop.time_limits is None:
        raise RecipeError(
            f"{file}: the study would never end: no max_tries or time_limits in 'scheduler.stop_criterion'",
            hint="write stop_criterion: {max_tries: 60}",
        )
    if len(task.rewards) > 1 and (stop.max_reward is not None or task.assessor):
        what = "stop_criterion.max_reward" if stop.max_reward is not None else "an assessor"
        raise RecipeError(f"{file}: {what} needs one reward_attribute, got {len(task.rewards)}", hint="take it out")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats: 1e-4 is a number, where PyYAML alone reads text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(text: str) -> Any:
    """Read YAML in which ``1e-4`` is a number."""
    return yaml.load(text, _Loader)


def _read(file: Path, overrides: Mapping[str, str]) -> Any:
    try:
        values = read_yaml(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: not YAML: {error}") from error
    for key, text in overrides.items():
        *sections, name = key.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise RecipeError(f"--set {key}: nothing of that name can be set in {file}")
        place[name] = read_yaml(text)
    return values


def _rewards(top: Section) -> dict[str, str]:
    names, modes = top.strings("reward_attribute"), top.strings("mode") or ("maximise",)
    if not names:
        raise RecipeError(f"{top.file}: no 'reward_attribute'", hint="name a key of the JSON lines that a trial prints")
    for mode in modes:
        if mode not in _MODES:
            raise RecipeError(f"{top.file}: unknown mode '{mode}'", hint=nearest(mode, _MODES))
    if len(modes) not in (1, len(names)) or len(set(names)) != len(names):
        raise RecipeError(f"{top.file}: expected one mode for each of {len(names)} rewards, got {len(modes)}")
    spread = modes * len(names) if len(modes) == 1 else modes
    return {name: _MODES[mode] for name, mode in zip(names, spread, strict=True)}


def _named(top: Section, key: str, known: Mapping[str, tuple[str, ...]], default: str | None) -> Any:
    value = top.values.get(key)
    if value is None:
        return default, Section(values={}, file=top.file, where=key)
    values = {"type": value} if isinstance(value, str) else value
    kind: Any = values.get("type") if isinstance(values, Mapping) else None
    if kind not in known:
        raise RecipeError(f"{top.file}: unknown {key} {kind or value!r}", hint=nearest(str(kind or value), known))
    return kind, Section.of(values, top.file, key, ("type", *known[kind]))


def _searcher_options(section: Section) -> dict[str, Any]:
    configs = section.values.get("configs")
    if configs is not None and (not isinstance(configs, list) or not all(isinstance(c, dict) for c in configs)):
        raise section.error("configs", "a list of {argument: value}")
    found = {
        "configs": configs,
        "startup_trials": section.integer("startup_trials", low=1),
        "population_size": section.integer("population_size", low=4),
        "multivariate": section.boolean("multivariate"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _assessor_options(kind: str | None, section: Section) -> dict[str, Any]:
    found: dict[str, Any] = {
        "start_step": section.integer("start_step", low=1),
        "min_trials": section.integer("min_trials", low=1),
        "epoch_num": section.integer("epoch_num", low=2),
        "threshold": section.number("threshold", low=0.0),
        "gap": section.integer("gap", low=1),
    }
    if kind == "CurveFitting" and found["epoch_num"] is None:
        raise RecipeError(f"{section.file}: assessor CurveFitting needs epoch_num, the last step of a full trial")
    return {key: value for key, value in found.items() if value is not None}


def _stop(top: Section) -> StopCriterion:
    scheduler = _scheduler(top)
    section = Section.of(scheduler.values.get("stop_criterion") or {}, top.file, "scheduler.stop_criterion", _STOP)
    reward = section.values.get("max_reward")
    if reward is not None and (isinstance(reward, bool) or not isinstance(reward, int | float)):
        raise section.error("max_reward", "a number")
    return StopCriterion(
        max_tries=section.integer("max_tries", low=1),
        time_limits=_seconds(section, "time_limits"),
        max_reward=reward,
        time_limits_per_job=_seconds(section, "time_limits_per_job"),
    )


def _executor(top: Section) -> ExecutorConfig:
    found = ExecutorConfig.parse(top.values.get("executor") or {}, top.file)
    size = _scheduler(top).integer("parallel_size", low=1)
    return found if size is None else replace(found, max_parallel=size)


def _scheduler(top: Section) -> Section:
    return Section.of(top.values.get("scheduler") or {}, top.file, "scheduler", ("parallel_size", "stop_criterion"))


def _seconds(section: Section, key: str) -> float | None:
    value = section.values.get(key)
    if value is None:
        return None
    match = _TIME.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    seconds = float(match[1]) * _SECONDS[match[2] or ""] if match else 0.0
    if seconds <= 0:
        raise section.error(key, "seconds, or a time such as 90s, 30m or 2h,")
    return seconds


def _accept(task: Section) -> tuple[int, ...]:
    codes = task.values.get("accept", [0])
    if not isinstance(codes, list) or not codes or not all(isinstance(c, int) and 0 <= c < 256 for c in codes):
        raise task.error("accept", "a list of exit codes such as [0, 1]")
    return tuple(codes)


def _text(values: Mapping[str, Any], args: Mapping[str, Arg]) -> str:
    """The task as YAML, the overrides in it and the paths of its file templates absolute."""
    content = json.loads(json.dumps(values, default=str))
    place = content if "search_args" in content else content["task"]
    for name, arg in args.items():
        if isinstance(arg, File):
            place["search_args"][name]["template"] = str(arg.template)
    return str(yaml.safe_dump(content, sort_keys=False))


def _storage(top: Section) -> str | None:
    url = top.string("storage")
    if url is not None and url.startswith("sqlite"):
        raise RecipeError(
            f"{top.file}: SQLite loses studies on shared disks",
            hint="leave out 'storage' for a journal file, or give postgresql://...",
        )
    return url


def _env(task: Section) -> dict[str, str]:
    env = task.values.get("env") or {}
    if not isinstance(env, Mapping):
        raise task.error("env", "a dict of variables")
    return {str(key): str(value) for key, value in env.items()}
