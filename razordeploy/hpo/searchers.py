"""Searchers: Optuna's samplers, and lists of configurations (grid, batch), which it has none for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from razordeploy.errors import RecipeError
from razordeploy.hpo.args import File, Params, fixed, grid, suggest
from razordeploy.hpo.storage import optuna, quiet
from razordeploy.hpo.task import HpoTask

_POPULATION = 10
_NEARNESS = 5.0
"""Distribution index of crossover and mutation (Deb and Agrawal 1995): larger is nearer to the parents."""
_MUTATED = 0.3
"""Share of the arguments of a child that are mutated."""


class Searcher:
    """Chooses the values of each trial.

    What trial ``n`` gets depends on the seed, on ``n`` and on the results so far, not on which process asks: a study
    that was resumed goes on as if it had not been interrupted.
    """

    def __init__(self, task: HpoTask) -> None:
        self._task = task
        self._listed = _listed(task)
        self._make = None if self._listed is not None else SAMPLERS[task.searcher]

    @property
    def count(self) -> int | None:
        """How many configurations there are; None: as many as one likes."""
        return None if self._listed is None else len(self._listed)

    def values(self, study: Any, trial_id: int, number: int) -> dict[str, Any]:
        """Choose the values of trial ``number``; those that the storage has already stay as they are."""
        module = optuna()
        with quiet():
            study.sampler = self._sampler(number)
            return suggest(self._task.args, module.trial.Trial(study, trial_id))

    def ask(self, study: Any, number: int) -> tuple[int, dict[str, Any]]:
        """Make trial ``number`` in the storage; returns its id there and its values."""
        with quiet():
            study.sampler = self._sampler(number)
            trial = study.ask()
            return trial._trial_id, suggest(self._task.args, trial)

    def _sampler(self, number: int) -> Any:
        samplers = optuna().samplers
        seed = trial_seed(self._task.seed, number)
        if self._listed is not None:
            return samplers.PartialFixedSampler(self._listed[number], samplers.RandomSampler(seed=seed))
        assert self._make is not None
        return self._make(samplers, seed, self._task)


def trial_seed(seed: int, number: int) -> int:
    """A seed of 32 bits that depends on the study's and on the trial's number."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "big")


def _listed(task: HpoTask) -> list[Params] | None:
    if task.searcher == "Grid":
        return list(grid(task.args))
    if task.searcher != "Batch":
        return None
    configs = task.searcher_options.get("configs")
    if not configs:
        names = [name for name, arg in task.args.items() if not isinstance(arg, File)]
        raise RecipeError(
            f"{task.path}: searcher Batch needs a list of configs", hint=f"configs: [{{{names[0]}: ...}}, ...]"
        )
    return [fixed(task.args, config) for config in configs]


def _random(samplers: Any, seed: int, task: HpoTask) -> Any:
    return samplers.RandomSampler(seed=seed)


def _tpe(samplers: Any, seed: int, task: HpoTask) -> Any:
    options = task.searcher_options
    return samplers.TPESampler(
        seed=seed,
        n_startup_trials=options.get("startup_trials", 10),
        multivariate=options.get("multivariate", False),
        constant_liar=task.executor.max_parallel > 1,
    )


def _gaussian_process(samplers: Any, seed: int, task: HpoTask) -> Any:
    return samplers.GPSampler(
        seed=seed, n_startup_trials=task.searcher_options.get("startup_trials", 10), deterministic_objective=False
    )


def _evolution(samplers: Any, seed: int, task: HpoTask) -> Any:
    nsga = samplers.nsgaii
    # Few trials want few parents and children near them; Optuna's own defaults are made for thousands.
    tries = task.stop.max_tries or 10 * _POPULATION
    return samplers.NSGAIISampler(
        seed=seed,
        population_size=task.searcher_options.get("population_size", min(50, max(5, tries // 10))),
        crossover=nsga.SBXCrossover(eta=_NEARNESS),
        mutation=nsga.PolynomialMutation(eta=_NEARNESS),
        mutation_prob=_MUTATED,
    )


SAMPLERS: dict[str, Callable[[Any, int, HpoTask], Any]] = {
    "Random": _random,
    "TPE": _tpe,
    "Skopt": _gaussian_process,
    "Evolution": _evolution,
}
"""Searcher -> what makes its sampler for one trial."""
