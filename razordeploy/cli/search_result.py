"""What a search leaves: the subnet, its weights, and a report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from razordeploy.cli import search_task
from razordeploy.cli.search_latency import Engines
from razordeploy.compress.nas.search.driver import Outcome
from razordeploy.compress.nas.search.greedy import GreedySearch
from razordeploy.compress.nas.search.latency import LatencyTable
from razordeploy.compress.nas.search.limits import Limits
from razordeploy.compress.nas.search.scored import Scored, best_of
from razordeploy.config.search import LATENCY
from razordeploy.executors.base import TaskExecutor
from razordeploy.job import Progress
from razordeploy.storage import atomic_write
from razordeploy.subnet.files import read_mapping, write_mapping

SUBNET, WEIGHTS = "fix_subnet.yaml", "subnet.pth"
_ANY = (0.0, math.inf)
_MOST_MEASURED = 8
"""Candidates that are built and measured at the end, until one keeps to the latency limits."""


@dataclass(kw_only=True)
class Chosen:
    """The subnet that is exported."""

    scored: Scored
    measured_ms: dict[str, float] = field(default_factory=dict)
    """Latency of its int8 engine, by backend."""
    exported: dict[str, float] = field(default_factory=dict)
    """The metric's figures of the files that were written, read again."""
    failures: list[str] = field(default_factory=list)
    """Checks that did not hold."""


def choose(
    outcome: Outcome,
    limits: Limits,
    tables: Mapping[str, LatencyTable],
    engines: Mapping[str, Engines],
    progress: Progress,
) -> Chosen:
    """The best candidate; with latencies the best whose measured engine keeps to the limits too.

    Raises:
        ModelError: no candidate has a score.
    """
    if not tables:
        return Chosen(scored=outcome.best())
    outcome.best()
    progress.stage("measure the best candidates as engines")
    tried: list[Chosen] = []
    wanted = best_of(outcome.scored, _MOST_MEASURED)
    for index, one in enumerate(wanted):
        chosen = Chosen(scored=one)
        for backend, measure in engines.items():
            chosen.measured_ms[backend] = measure(one.subnet, limits.ranges.get(f"{LATENCY}{backend}", _ANY)[1])
        progress.advance(index + 1, len(wanted))
        measured = {f"{LATENCY}{backend}": ms for backend, ms in chosen.measured_ms.items()}
        if limits.allow({**one.costs, **measured}):
            return chosen
        tried.append(chosen)
    best = tried[0]
    for name, (low, high) in limits.ranges.items():
        ms = best.measured_ms.get(name.removeprefix(LATENCY)) if name.startswith(LATENCY) else None
        if ms is not None and not low <= ms <= high:
            best.failures.append(
                f"{name}: measured {ms:.4g} ms, which is outside [{low:.4g}, {high:.4g}], and so are the "
                f"{len(tried)} best candidates"
            )
    return best


def export_chosen(executor: TaskExecutor, chosen: Chosen, score: str, folder: Path) -> None:
    """Write the subnet file and the weights, and let a worker read both into a fresh model and evaluate that.

    Workers do it, as they have scored it: with other threads, sums have other last digits.
    """
    content, weights = executor.submit(search_task.sliced, chosen.scored.subnet).result()
    write_mapping(folder / SUBNET, content)
    atomic_write(folder / WEIGHTS, weights)
    read = (read_mapping(folder / SUBNET), (folder / WEIGHTS).read_bytes())
    chosen.exported = executor.submit(search_task.figures, *read).result()
    if chosen.exported[score] != chosen.scored.score:
        chosen.failures.append(
            f"the exported subnet has {score} {chosen.exported[score]:.4f}, the search measured "
            f"{chosen.scored.score:.4f}"
        )


def write_targets(executor: TaskExecutor, searcher: GreedySearch, folder: Path) -> dict[str, str]:
    """A subnet file for each target of a greedy search, by the predecessor's name for it."""
    files = {}
    for target, one in searcher.found.items():
        name = f"FLOPS_{searcher.bounded.costs(one.subnet)[searcher.resource]:.2f}M.yaml"
        write_mapping(folder / name, executor.submit(search_task.sliced, one.subnet).result()[0])
        files[f"{target:g}"] = name
    return files
