"""A pipeline before it runs: its steps, what each depends on, and whether all that they need is there."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from razordeploy import __version__
from razordeploy.backends.registry import check_names, find_backend
from razordeploy.cli.jobs import RecipeJob
from razordeploy.cli.stages.state import State, key_of
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.config.stages import ENGINE_STAGES, StageConfig, placed
from razordeploy.data.sources import build_source
from razordeploy.errors import MissingDependency, RazorDeployError, RecipeError, StorageError, UsageError
from razordeploy.sliced import as_recipe

_UNCOUNTED = ("pipeline", "work_dir", "checkpoint")
"""Keys of the recipe that do not change what a stage makes: other stages, and where results go."""
_COPIES = {"train": 4.0, "search": 2.0, "export": 3.0, "ptq": 6.0, "qat": 8.0, "convert": 3.0}
"""Size of what a stage writes, in sizes of the model's weights; measured on small models, and rounded up."""
_LEAST_BYTES = 30_000_000


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage, and what it was told from outside."""

    config: StageConfig
    recipe: str
    """Path of the recipe that it follows, or the pipeline's own."""
    given: Mapping[str, str]
    """Overrides of the whole run; none where the stage has a recipe of its own."""

    def own_overrides(self, folder: Path | None = None) -> dict[str, str]:
        """What the stage sets itself, as text; with ``folder`` the folders of earlier stages are filled in."""
        names = {name: str(folder / name) for name in self.config.parents} if folder is not None else None
        changes: dict[str, Any] = dict(self.config.set)
        if self.config.model is not None:
            changes["model"] = {"_delete_": True, **self.config.model}
        if names is not None:
            changes = placed(changes, names)
        return {key: repr(value) for key, value in changes.items()}

    def recipe_of(self, state: State, folder: Path) -> tuple[str, dict[str, str]]:
        """The recipe and all overrides; the model is that of the stage before."""
        overrides, recipe = dict(self.given), self.recipe
        if self.config.source is not None and self.config.model is None:
            made_of, inherited = as_recipe(state.model_of(self.config.source).path)
            overrides |= inherited
            recipe = self.recipe if self.config.recipe is not None else made_of
        return recipe, {**overrides, **self.own_overrides(folder)}

    def key(self, state: State) -> str:
        """Hash of the recipe as this stage reads it, of its parents, and of the versions."""
        recipe = load_recipe(self.recipe, {**self.given, **self.own_overrides()})
        counted = {key: value for key, value in recipe.config.items() if key not in _UNCOUNTED}
        parents = {name: _ids(state, name) for name in self.config.parents}
        return key_of(
            {
                "config": dataclasses.replace(recipe, config=counted).fingerprint(),
                "stage": self.config.stage,
                "options": self.config.options,
                "parents": parents,
                "versions": [__version__, torch.__version__],
            }
        )


def _ids(state: State, name: str) -> list[str]:
    done = state.done.get(name)
    return [] if done is None else sorted(str(entry["id"]) for entry in done.artifacts.values())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All steps of a recipe."""

    recipe: Recipe
    steps: tuple[Step, ...]
    folder: Path

    @classmethod
    def read(cls, path: str, overrides: Mapping[str, str], work_dir: Path | None) -> Plan:
        """Read a recipe and those of its stages.

        Raises:
            RecipeError: it has no pipeline, or a recipe or an override of a stage cannot be used.
        """
        recipe = load_recipe(path, overrides)
        if not recipe.pipeline:
            raise RecipeError(
                f"{recipe.path}: no 'pipeline' section", hint="pipeline=[dict(stage='train'), dict(stage='ptq')]"
            )
        steps = []
        for config in recipe.pipeline:
            other = None if config.recipe is None else _beside(config.recipe, recipe)
            step = Step(
                config=config,
                recipe=str(recipe.path) if other is None else other,
                given=dict(overrides) if other is None else {},
            )
            _read(step)
            steps.append(step)
        folder = work_dir or Path(recipe.work_dir or Path("work_dirs") / recipe.name)
        return cls(recipe=recipe, steps=tuple(steps), folder=folder)

    def check(self, steps: Sequence[Step]) -> list[RazorDeployError]:
        """What stands in the way: data that is not there, a backend or a package that is not installed.

        A missing backend of a stage that has others does not: they are made, and the run ends with its exit code.
        """
        problems: dict[str, RazorDeployError] = {}
        for step in steps:
            for problem in _problems(step):
                problems.setdefault(str(problem), problem)
        free = shutil.disk_usage(_existing(self.folder)).free
        needed = self.bytes_needed()
        if free < needed:
            text = f"{self.folder} needs {needed / 1e6:.0f} MB of free disk, found {free / 1e6:.0f} MB"
            problems.setdefault(text, StorageError(text, hint="give --work-dir on another disk"))
        return list(problems.values())

    def bytes_needed(self) -> int:
        """An estimate of what the stages will write."""
        return int(_LEAST_BYTES + self._weight_bytes() * sum(_COPIES[s.config.stage] for s in self.steps))

    def _weight_bytes(self) -> int:
        step = self.steps[0]
        options = {**step.given, **step.own_overrides(), "checkpoint": "None", "prune": "None", "subnet": "None"}
        try:
            module = RecipeJob.open(load_recipe(step.recipe, options)).built.module
        except RazorDeployError:
            return 0  # the check of the stage itself says why
        return sum(t.numel() * t.element_size() for t in module.state_dict().values())


def _beside(name: str, recipe: Recipe) -> str:
    file = recipe.path.parent / name
    return str(file) if file.is_file() else name


def _read(step: Step) -> Recipe:
    try:
        return load_recipe(step.recipe, {**step.given, **step.own_overrides()})
    except RazorDeployError as error:
        raise type(error)(f"stage '{step.config.name}': {error}") from error


def _problems(step: Step) -> list[RazorDeployError]:
    found: list[RazorDeployError] = []
    recipe, name = _read(step), step.config.name
    if step.config.stage in ENGINE_STAGES:
        backends = step.config.options.get("backends") or recipe.deploy.backends
        if not backends:
            found.append(UsageError(f"stage '{name}': no backend was asked for", hint="backends=['openvino']"))
        try:
            check_names(list(backends))
            found += _missing(list(backends))
        except RazorDeployError as error:
            found.append(error)
    if recipe.data is not None:
        for split in ("train", "test"):
            try:
                build_source(recipe.data, split, recipe.path.parent)
            except RazorDeployError as error:
                found.append(error)
    return found


def _missing(backends: Sequence[str]) -> list[RazorDeployError]:
    found: list[RazorDeployError] = []
    for backend in backends:
        try:
            find_backend(backend)
        except MissingDependency as error:
            found.append(error)
    return found


def blocking(steps: Sequence[Step], problems: Sequence[RazorDeployError]) -> list[RazorDeployError]:
    """The problems that leave a stage with nothing to do."""
    alone = set()
    for step in steps:
        if step.config.stage in ENGINE_STAGES:
            backends = step.config.options.get("backends") or _read(step).deploy.backends
            missing = _missing(list(backends))
            alone |= {str(error) for error in missing} if len(missing) == len(backends) else set()
    return [p for p in problems if not isinstance(p, MissingDependency) or str(p) in alone or "backend" not in str(p)]


def _existing(folder: Path) -> Path:
    folder = folder.resolve()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def print_plan(plan: Plan, state: State, first: int | None, last: int, problems: Sequence[RazorDeployError]) -> None:
    """Print what would be done, and what stands in the way."""
    table = Table(box=box.SIMPLE_HEAD)
    for header in ("", "stage", "does", "model of", "sets", "state"):
        table.add_column(header, overflow="fold")
    changed: set[str] = set()
    for index, step in enumerate(plan.steps):
        config = step.config
        kept = not changed & set(config.parents) and state.is_current(config.name, step.key(state))
        if index > last:
            word = "not wanted"
        elif kept and (first is None or index < first):
            word = "kept"
        else:
            word = "to do"
            changed.add(config.name)
        sets = ", ".join([*(f"{k}={v!r}" for k, v in config.set.items()), *(["model"] if config.model else [])])
        backends = ", ".join(config.options.get("backends") or ())
        does = f"{config.stage} {backends}".strip()
        table.add_row(str(index + 1), config.name, does, config.source or "the recipe", sets or "-", word)
    console = Console()
    console.print(table)
    console.print(f"work dir: {plan.folder}", markup=False, soft_wrap=True)
    console.print(f"about {plan.bytes_needed() / 1e6:.0f} MB of disk", markup=False, soft_wrap=True)
    for problem in problems:
        console.print(f"problem: {problem}", markup=False, soft_wrap=True, style="red")
