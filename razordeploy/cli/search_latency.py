"""Latency of int8 engines in a search: measured on some subnets, kept in the work dir, predicted for the others."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from razordeploy.backends.loaded import load_engine
from razordeploy.backends.registry import check_names
from razordeploy.cli.jobs import RecipeJob
from razordeploy.compress.nas.search.journal import Journal
from razordeploy.compress.nas.search.latency import LatencyTable, fit_latency, subnets_to_measure
from razordeploy.compress.nas.search.limits import Costs
from razordeploy.compress.nas.search.scored import Scored
from razordeploy.compress.nas.search.scorer import Scorer
from razordeploy.compress.nas.search.space import Subnet, subnet_key
from razordeploy.config.search import LATENCY, LatencyConfig
from razordeploy.environment import cpu_name, threads, versions
from razordeploy.errors import ModelError, RazorDeployError
from razordeploy.job import Progress, PTQJob
from razordeploy.pipeline import run_ptq
from razordeploy.quantization.calibrate import Interrupted

_CALIBRATION_SAMPLES = 64
"""Ranges have no influence on latency."""
_ROUNDS = 3
"""Medians of which the least counts: what else the machine does only makes an engine slower."""
_MORE_ROUNDS, _PAUSE_S = 4, 0.5


@dataclass(kw_only=True)
class Engines:
    """Builds and measures int8 engines of subnets on one backend.

    Args:
        backend: its name.
        scorer: the supernet and its data.
        job: the recipe.
        config: how long, and with how many threads.
    """

    backend: str
    scorer: Scorer
    job: RecipeJob
    config: LatencyConfig

    def __call__(self, subnet: Subnet, limit: float = math.inf) -> float:
        """Latency of one subnet in ms: the least of several medians, of more where that is above ``limit``."""
        with tempfile.TemporaryDirectory() as folder:
            self.build(subnet, Path(folder))
            least = min(self.measure(Path(folder)) for _ in range(_ROUNDS))
            for _ in range(_MORE_ROUNDS):
                if least <= limit:
                    break
                time.sleep(_PAUSE_S)
                least = min(least, self.measure(Path(folder)))
            return least

    def build(self, subnet: Subnet, folder: Path) -> None:
        """Write the int8 engine of ``subnet`` below ``folder``."""
        module = self.scorer.supernet.fixed(subnet, self.scorer.example_inputs)[1]
        stream = self.scorer.calibration or self.scorer.evaluation
        first = next(iter(stream()))
        run_ptq(
            PTQJob(
                model=module,
                example_inputs=tuple(x[:2] for x in first.inputs),
                calibration=lambda: iter([first.head(_CALIBRATION_SAMPLES)]),
                backends=(self.backend,),
                work_dir=folder,
                quantize=self.job.recipe.quantize,
                deploy=self.job.deploy,
                benchmark_seconds=0.0,
            )
        )

    def measure(self, folder: Path) -> float:
        """Median latency in milliseconds of the engine below ``folder``, at the recipe's ``deploy.batch_size``."""
        engine = load_engine(folder / self.backend, threads=self.config.threads)
        seconds = self.config.seconds / _ROUNDS
        return float(engine.benchmark(batch=self.job.deploy.batch_size, seconds=seconds).p50_ms)

    def identity(self) -> str:
        """What a measurement depends on, other than the subnet."""
        deploy = self.job.deploy
        return json.dumps(
            {
                "space": self.scorer.supernet.space.fingerprint(),
                "model": repr(self.job.recipe.model),
                "backend": self.backend,
                "quantize": repr(self.job.recipe.quantize),
                "batch": deploy.batch_size,
                "inputs": [list(x.shape) for x in self.scorer.example_inputs],
                "machine": [cpu_name(), threads(), self.config.threads],
                "versions": versions((self.backend, "torch")),
            },
            sort_keys=True,
        )


def latency_tables(
    engines: Mapping[str, Engines],
    costs: Costs,
    *,
    folder: Path,
    progress: Progress,
    seed: int,
) -> dict[str, LatencyTable]:
    """A table for each backend; measurements that are in ``folder`` already are not made again.

    Raises:
        UsageError: an unknown backend.
        MissingDependency: one that is not installed.
        ModelError: too few subnets could be built.
        Interrupted: ``progress.stop`` asked for it; what was measured is kept.
    """
    check_names(list(engines))
    tables = {}
    for backend, engine in engines.items():
        progress.stage(f"latency of int8 engines: {backend}")
        tables[backend] = _table(engine, costs, folder, progress, seed)
    return tables


def _table(engines: Engines, costs: Costs, folder: Path, progress: Progress, seed: int) -> LatencyTable:
    space = engines.scorer.supernet.space
    journal = Journal(folder / f"latency_{engines.backend}.jsonl", engines.identity())
    wanted = subnets_to_measure(space, engines.config.samples, seed)
    with tempfile.TemporaryDirectory() as scratch:
        problem = _measure(engines, wanted, journal, Path(scratch), progress)
    found = [(subnet, journal.known[subnet_key(subnet)].score) for subnet in wanted]
    measured = [(subnet, ms) for subnet, ms in found if ms is not None]
    if len(measured) < len(wanted) // 2 or len(measured) < 4:
        raise ModelError(
            f"{engines.backend}: only {len(measured)} of {len(wanted)} subnets became engines; the last: {problem}"
        )
    return fit_latency(space, measured, costs)


def _measure(
    engines: Engines, wanted: list[Subnet], journal: Journal, scratch: Path, progress: Progress
) -> RazorDeployError | None:
    """Measure what the journal lacks, each engine several times; return the last problem."""
    problem: RazorDeployError | None = None
    new = [subnet for subnet in wanted if subnet_key(subnet) not in journal.known]
    done, total = len(wanted) - len(new), len(wanted) + (_ROUNDS - 1) * len(new)
    # Round by round: the machine's slow moments hit one measurement of an engine, not all of them.
    for _ in range(_ROUNDS):
        for index, subnet in enumerate(new):
            if progress.stop():
                raise Interrupted(f"{len(journal.known)} measured subnets are in {journal.path}")
            known = journal.known.get(subnet_key(subnet))
            if known is None or known.score is not None:
                place = scratch / str(index)
                try:
                    if known is None:
                        engines.build(subnet, place)
                    ms = engines.measure(place)
                    if known is None or known.score is None or ms < known.score:
                        journal.add(Scored(subnet=subnet, score=ms))
                except ModelError as error:
                    problem = error
                    journal.add(Scored(subnet=subnet, score=None, error=str(error)))
            done += 1
            progress.advance(done, total)
    return problem


def with_latency(costs: Costs, tables: Mapping[str, LatencyTable]) -> Costs:
    """``costs``, and the latency on each backend by the tables."""
    if not tables:
        return costs

    def both(subnet: Subnet) -> Mapping[str, float]:
        found = dict(costs(subnet))
        for backend, table in tables.items():
            found[f"{LATENCY}{backend}"] = table(subnet, found["macs"])
        return found

    return both
