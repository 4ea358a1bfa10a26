"""Hyper-parameter search from Python: of a function, or of one of razordeploy's own verbs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from razordeploy.config.executor import ExecutorConfig
from razordeploy.errors import RecipeError, nearest
from razordeploy.hpo.args import Arg, Categorical, File, Int, Nested, Option, Real, parse_args
from razordeploy.hpo.records import StudyRecord
from razordeploy.hpo.run import run_study
from razordeploy.hpo.study import Listener
from razordeploy.hpo.task import ASSESSORS, SEARCHERS, HpoTask, StopCriterion, check_task, parse_task
from razordeploy.hpo.trial import Trial

__all__ = [
    "Categorical",
    "File",
    "Int",
    "Nested",
    "Option",
    "Real",
    "StopCriterion",
    "StudyRecord",
    "Trial",
    "optimize",
    "search_verb",
]

_VERBS = {"ptq": "report.json", "convert": "report.json", "qat": "report.json", "run": "report.json"}
"""Verb -> the file in its work dir that holds what it measured."""


def optimize(
    function: Callable[[Trial], Any],
    search_args: Mapping[str, Arg | Mapping[str, Any] | Sequence[Any]],
    *,
    work_dir: str | Path,
    rewards: Mapping[str, str] | None = None,
    searcher: str = "TPE",
    searcher_options: Mapping[str, Any] | None = None,
    assessor: str | None = None,
    assessor_options: Mapping[str, Any] | None = None,
    stop: StopCriterion | None = None,
    executor: ExecutorConfig | Mapping[str, Any] | str = "local",
    seed: int = 0,
    listener: Listener | None = None,
) -> StudyRecord:
    """Search the arguments with which ``function`` returns the best value.

    A study that lies in ``work_dir`` already goes on; what had ended is not run again.

    Args:
        function: takes a ``Trial`` (``params``, ``seed``, ``folder``, ``report(value, step)``) and returns a number,
            or a dict of reward -> number. With any executor but ``inline`` it has to be a function of a module.
        search_args: name -> ``Real``, ``Int``, ``Categorical`` or ``Nested``, or the dict that a task file would have.
        work_dir: of the study: its page, its best values, a folder per trial.
        rewards: reward -> ``maximise`` or ``minimise``; default: ``value``, maximised. Several: the front is searched.
        searcher: Grid, Batch, Random, Skopt, Evolution or TPE.
        searcher_options: such as ``configs`` of Batch.
        assessor: MedianStop or CurveFitting; it needs ``Trial.report``.
        assessor_options: such as ``start_step``.
        stop: when the study ends.
        executor: where trials run.
        seed: of the searcher, and of every trial.
        listener: called with the number and the result of every trial that ends.

    Raises:
        RecipeError: an unknown searcher or option, or a study without an end.
        MissingDependency: Optuna or the executor's package is not installed.
        StorageError: a live run holds the work dir.
    """
    for name, known in ((searcher, SEARCHERS), (assessor, ASSESSORS)):
        if name is not None and name not in known:
            raise RecipeError(f"optimize: unknown '{name}'", hint=nearest(name, known))
    parsed = executor if isinstance(executor, ExecutorConfig) else ExecutorConfig.parse(executor, "optimize")
    task = HpoTask(
        args=_args(search_args),
        rewards=dict(rewards or {"value": "maximise"}),
        searcher=searcher,
        searcher_options=dict(searcher_options or {}),
        assessor=assessor,
        assessor_options=dict(assessor_options or {}),
        stop=stop or StopCriterion(),
        executor=parsed,
        seed=seed,
    )
    check_task(task, "optimize")
    return run_study(task, Path(work_dir), function=function, listener=listener)


def search_verb(
    verb: str,
    recipe: str,
    search_args: Mapping[str, Mapping[str, Any] | Sequence[Any]],
    *,
    work_dir: str | Path,
    rewards: Mapping[str, str],
    options: Sequence[str] = (),
    result: str | None = None,
    searcher: str | Mapping[str, Any] = "TPE",
    scheduler: Mapping[str, Any] | None = None,
    executor: Mapping[str, Any] | str = "local",
    env: Mapping[str, str] | None = None,
    seed: int = 0,
    listener: Listener | None = None,
) -> StudyRecord:
    """Search keys of a recipe for what one of razordeploy's verbs measures, such as an engine's accuracy and latency.

    Args:
        verb: ``ptq``, ``convert``, ``qat`` or ``run``; with ``result`` any that takes ``--set`` and ``--work-dir``.
        recipe: its recipe.
        search_args: dotted key of the recipe -> what is searched, as in a task file.
        work_dir: of the study; every trial works in a folder of its own in there.
        rewards: dotted name in the verb's ``report.json`` -> ``maximise`` or ``minimise``, for example
            ``{"backends.openvino.metrics.engine.top1": "maximise"}``.
        options: more words of the command line, such as ``["--backend", "openvino"]``.
        result: another file in the trial's work dir.
        searcher: as in a task file.
        scheduler: ``parallel_size`` and ``stop_criterion``.
        executor: where trials run.
        env: more environment variables of the trials.
        seed: of the searcher.
        listener: called with the number and the result of every trial that ends.
    """
    if result is None and verb not in _VERBS:
        raise RecipeError(f"search_verb: '{verb}' writes no report", hint=nearest(verb, _VERBS))
    words = ["{python}", "-m", "razordeploy.cli.main", verb, _literal(recipe), *map(_literal, options)]
    words += ["--work-dir", "{trial_dir}/work"]
    for key in search_args:
        words += ["--set", f"{key}={{{key}}}"]
    values = {
        "task": {
            # A gap over its limit (exit code 1) is a measurement like any other.
            "template": shlex.join(words),
            "result": f"{{trial_dir}}/work/{result or _VERBS.get(verb)}",
            "accept": [0, 1],
            "env": dict(env or {}),
        },
        "search_args": dict(search_args),
        "reward_attribute": list(rewards),
        "mode": list(rewards.values()),
        "searcher": searcher,
        "scheduler": dict(scheduler or {}),
        "executor": executor,
        "seed": seed,
    }
    return run_study(parse_task(values, Path("search_verb")), Path(work_dir), listener=listener)


def _args(values: Mapping[str, Arg | Mapping[str, Any] | Sequence[Any]]) -> dict[str, Arg]:
    found = {}
    for name, value in values.items():
        found[name] = value if isinstance(value, Arg) else parse_args({name: value}, "optimize")[name]
    return found


def _literal(word: str) -> str:
    return word.replace("{", "{{").replace("}", "}}")
