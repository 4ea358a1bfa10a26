"""``razordeploy search``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from razordeploy.cli import search_task
from razordeploy.cli.jobs import RecipeJob
from razordeploy.cli.screen import ScreenProgress
from razordeploy.cli.search_latency import Engines, latency_tables, with_latency
from razordeploy.cli.search_report import print_search, write_search_report
from razordeploy.cli.search_result import Chosen, choose, export_chosen, write_targets
from razordeploy.cli.signals import Signalled, stop_on_signals
from razordeploy.compress.nas.search.cost import SupernetCosts
from razordeploy.compress.nas.search.driver import Outcome, run_predicted_search, run_search
from razordeploy.compress.nas.search.evaluator import Evaluator
from razordeploy.compress.nas.search.greedy import GreedySearch
from razordeploy.compress.nas.search.journal import JOURNAL, Journal
from razordeploy.compress.nas.search.latency import LatencyTable
from razordeploy.compress.nas.search.limits import Bounded, Costs, Limits
from razordeploy.compress.nas.search.metric_predictor import MetricPredictor
from razordeploy.compress.nas.search.scored import Searcher
from razordeploy.compress.nas.search.scorer import Scorer
from razordeploy.compress.nas.search.space import SearchSpace
from razordeploy.compress.nas.search.table import build_searcher
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.config.search import SearchConfig
from razordeploy.executors.base import TaskExecutor
from razordeploy.executors.build import build_executor
from razordeploy.job import Progress
from razordeploy.quantization.calibrate import Interrupted
from razordeploy.strict_json import jsonable
from razordeploy.workdir import WorkDir


@dataclass(kw_only=True)
class Search:
    """A search under way; the report is made of it."""

    recipe: Recipe
    config: SearchConfig
    scorer: Scorer
    command: str
    folder: Path
    costs: SupernetCosts
    limits: Limits
    tables: dict[str, LatencyTable]
    searcher: Searcher
    outcome: Outcome
    chosen: Chosen
    evaluator: Evaluator
    bounded: Bounded
    warnings: list[str]
    targets: dict[str, str]
    """Of a greedy search: subnet file by target."""
    seconds: float = 0.0


def run(
    recipe_path: str,
    *,
    checkpoint: Path | None,
    work_dir: Path | None,
    overrides: Mapping[str, str],
    workers: int,
    trust: bool,
    command: str,
) -> int:
    """Search as the recipe says and return the exit code: 0, 1 (a check failed) or 128 + signal."""
    start = time.perf_counter()
    recipe = load_recipe(recipe_path, overrides)
    folder = work_dir or Path(recipe.work_dir or Path("work_dirs") / recipe.name)
    given = None if checkpoint is None else str(checkpoint.resolve())
    scorer = search_task.open_scorer(recipe, given, trust=trust)
    where = recipe.executor if not workers else dataclasses.replace(recipe.executor, max_parallel=workers)
    with WorkDir(folder) as work, stop_on_signals() as stop, ScreenProgress() as screen:
        try:
            executor = build_executor(
                where,
                initializer=search_task.load,
                initargs=(str(recipe.path.resolve()), dict(overrides), given, trust),
                folder=work.path / "jobs",
            )
            with executor:
                found = _search(recipe, scorer, work.path, screen.progress(stop), executor, command)
        except (Interrupted, Signalled) as end:
            screen.close()
            number = end.number if isinstance(end, Signalled) else stop.number
            what = f"interrupted: {end}" if isinstance(end, Interrupted) else "interrupted"
            print(f"{what}; resume with: {command}", file=sys.stderr)
            return 128 + number
        found.seconds = time.perf_counter() - start
        write_search_report(found)
    print_search(found)
    return 1 if found.chosen.failures else 0


def _search(
    recipe: Recipe, scorer: Scorer, folder: Path, progress: Progress, executor: TaskExecutor, command: str
) -> Search:
    config = recipe.search or SearchConfig()
    space = scorer.supernet.space
    warnings: list[str] = []
    progress.stage("costs of the search space")
    costs = SupernetCosts(scorer.supernet.module, scorer.supernet.mutator, scorer.example_inputs)
    costs.check(space, recipe.seed)
    job = RecipeJob(recipe=recipe, built=scorer.supernet.built)
    engines = {
        name: Engines(backend=name, scorer=scorer, job=job, config=config.latency) for name in config.latency_backends
    }
    tables = latency_tables(engines, costs, folder=folder, progress=progress, seed=recipe.seed)
    every = with_latency(costs, tables)
    limits = resolve_limits(config, every, space)
    bounded = Bounded(space, every, limits)
    bounded.check_reachable(random.Random(recipe.seed))
    searcher = build_searcher(config.type, config.options, bounded, recipe.seed)
    journal = Journal(folder / JOURNAL, identity(recipe, config, scorer))
    if journal.kept_as is not None:
        warnings.append(f"{folder / JOURNAL} was of other weights, data or space; it is kept as {journal.kept_as.name}")
    progress.stage(f"{config.type} search" + (f", {len(journal.known)} candidates known" if journal.known else ""))
    planned = searcher.planned if config.predictor is None else config.predictor.train_samples + config.predictor.verify
    evaluator = Evaluator(
        executor,
        search_task.score,
        journal,
        costs=every,
        stop=progress.stop,
        advance=lambda done: progress.advance(done, planned),
    )
    outcome = _outcome(recipe, config, scorer.score, searcher, evaluator, bounded)
    if isinstance(searcher, GreedySearch):
        chosen = Chosen(scored=searcher.found[searcher.targets[-1]])
    else:
        chosen = choose(outcome, limits, tables, engines, progress)
    progress.stage("export the chosen subnet")
    export_chosen(executor, chosen, scorer.score, folder)
    return Search(
        targets=write_targets(executor, searcher, folder) if isinstance(searcher, GreedySearch) else {},
        recipe=recipe,
        config=config,
        scorer=scorer,
        command=command,
        folder=folder,
        costs=costs,
        limits=limits,
        tables=tables,
        searcher=searcher,
        outcome=outcome,
        chosen=chosen,
        evaluator=evaluator,
        bounded=bounded,
        warnings=warnings,
    )


def _outcome(
    recipe: Recipe, config: SearchConfig, score: str, searcher: Searcher, evaluator: Evaluator, bounded: Bounded
) -> Outcome:
    wanted = config.predictor
    if wanted is None:
        return run_search(searcher, evaluator)
    predictor = MetricPredictor(
        {"type": wanted.type, **wanted.options}, bounded.space, encoding_type=wanted.encoding, score_key=score
    )
    return run_predicted_search(
        searcher,
        evaluator,
        predictor,
        bounded,
        train_samples=wanted.train_samples,
        verify=wanted.verify,
        seed=recipe.seed,
    )


def identity(recipe: Recipe, config: SearchConfig, scorer: Scorer) -> str:
    """What a score depends on, other than the candidate: weights, space, data, and how they are judged."""
    content = {
        "weights": scorer.supernet.weights_digest(),
        "space": scorer.supernet.space.fingerprint(),
        "score": [scorer.score, config.split, config.num_samples, config.recalibrate, recipe.deploy.metric],
        "data": [repr(recipe.data), repr(recipe.val_dataloader), repr(recipe.test_dataloader)],
        "calibration": [repr(recipe.calibration), repr(recipe.calibrate_dataloader), recipe.seed],
    }
    return hashlib.sha256(json.dumps(jsonable(content), sort_keys=True).encode()).hexdigest()


def resolve_limits(config: SearchConfig, costs: Costs, space: SearchSpace) -> Limits:
    """The recipe's ranges; bounds in percent are of the most that the space reaches."""
    ranges = {name: (max(low, 0.0), high) for name, (low, high) in config.constraints.items()}
    for name, (low, high) in config.shares.items():
        most = Bounded(space, costs).reach(name)[1]
        old = ranges[name]
        ranges[name] = (old[0] if low is None else low * most, old[1] if high is None else high * most)
    return Limits(ranges)
