"""Latency of int8 engines in a search: measured on some subnets, kept in the work dir, predicted for the others."""

from __future__ import annotations

import json
import tempfile
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
from razordeploy.config.search import LATENCY
from razordeploy.environment import cpu_name, threads, versions
from razordeploy.errors import ModelError, RazorDeployError
from razordeploy.job import Progress, PTQJob
from razordeploy.pipeline import run_ptq
from razordeploy.quantization.calibrate import Interrupted

_CALIBRATION_SAMPLES = 64
"""Ranges have no influence on latency."""


@dataclass(kw_only=True)
class Engines:
    """Builds and measures int8 engines of subnets on one backend.

    Args:
        backend: its name.
        scorer: the supernet and its data.
        job: the recipe.
        seconds: time of one measurement.
    """

    backend: str
    scorer: Scorer
    job: RecipeJob
    seconds: float

    def __call__(self, subnet: Subnet) -> float:
        """Median latency in milliseconds, at the recipe's ``deploy.batch_size``."""
        module = self.scorer.supernet.fixed(subnet, self.scorer.example_inputs)[1]
        stream = self.scorer.calibration or self.scorer.evaluation
        first = next(iter(stream()))
        with tempfile.TemporaryDirectory() as folder:
            run_ptq(
                PTQJob(
                    model=module,
                    example_inputs=tuple(x[:2] for x in first.inputs),
                    calibration=lambda: iter([first.head(_CALIBRATION_SAMPLES)]),
                    backends=(self.backend,),
                    work_dir=Path(folder),
                    quantize=self.job.recipe.quantize,
                    deploy=self.job.deploy,
                    benchmark_seconds=0.0,
                )
            )
            engine = load_engine(Path(folder) / self.backend)
            return float(engine.benchmark(batch=self.job.deploy.batch_size, seconds=self.seconds).p50_ms)

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
                "machine": [cpu_name(), threads()],
                "versions": versions((self.backend, "torch")),
            },
            sort_keys=True,
        )


def latency_tables(
    engines: Mapping[str, Engines],
    costs: Costs,
    *,
    samples: int,
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
        tables[backend] = _table(engine, costs, samples, folder, progress, seed)
    return tables


def _table(engines: Engines, costs: Costs, samples: int, folder: Path, progress: Progress, seed: int) -> LatencyTable:
    space = engines.scorer.supernet.space
    journal = Journal(folder / f"latency_{engines.backend}.jsonl", engines.identity())
    wanted = subnets_to_measure(space, samples, seed)
    problem: RazorDeployError | None = None
    for index, subnet in enumerate(wanted):
        if progress.stop():
            raise Interrupted(f"{len(journal.known)} measured subnets are in {journal.path}")
        if subnet_key(subnet) not in journal.known:
            try:
                journal.add(Scored(subnet=subnet, score=engines(subnet)))
            except ModelError as error:
                problem = error
                journal.add(Scored(subnet=subnet, score=None, error=str(error)))
        progress.advance(index + 1, len(wanted))
    found = [(subnet, journal.known[subnet_key(subnet)].score) for subnet in wanted]
    measured = [(subnet, ms) for subnet, ms in found if ms is not None]
    if len(measured) < len(wanted) // 2 or len(measured) < 4:
        raise ModelError(
            f"{engines.backend}: only {len(measured)} of {len(wanted)} subnets became engines; the last: {problem}"
        )
    return fit_latency(space, measured, costs)


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
