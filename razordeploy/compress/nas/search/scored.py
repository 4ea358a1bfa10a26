"""A candidate and what is known of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from razordeploy.compress.nas.search.space import Subnet, subnet_key


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One candidate after its evaluation."""

    subnet: Subnet
    score: float | None
    """Higher is better; None: the evaluation failed."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """``macs``, ``flops`` and ``params`` in millions, latencies in ms."""
    error: str | None = None
    """Why there is no score."""
    seconds: float = 0.0
    """Time of the evaluation."""
    predicted: bool = False
    """True: the score is a predictor's, not measured."""

    @property
    def key(self) -> str:
        """The same for equal subnets."""
        return subnet_key(self.subnet)

    @property
    def value(self) -> float:
        """The score, or minus infinity."""
        return -math.inf if self.score is None or math.isnan(self.score) else self.score


def best_of(scored: Iterable[Scored], count: int) -> list[Scored]:
    """The best ``count`` distinct candidates that have a score, the best first; of equal ones the first seen."""
    distinct: dict[str, Scored] = {}
    for one in scored:
        if one.value > -math.inf:
            distinct.setdefault(one.key, one)
    return sorted(distinct.values(), key=lambda one: -one.value)[:count]


def pareto_front(scored: Iterable[Scored], cost: str) -> list[Scored]:
    """Candidates that no other beats or equals in both score and ``cost``, the cheapest first."""
    known = [one for one in scored if one.value > -math.inf and math.isfinite(one.costs.get(cost, math.nan))]
    front: list[Scored] = []
    for one in sorted(known, key=lambda one: (one.costs[cost], -one.value)):
        if not front or one.value > front[-1].value:
            front.append(one)
    return front


class Searcher(Protocol):
    """Proposes candidates in batches; deterministic, so that told the same results again it asks for the same."""

    @property
    def planned(self) -> int | None:
        """About how many candidates it will ask for; None: it cannot tell."""

    def ask(self) -> list[Subnet]:
        """The next batch, distinct and never asked for before; empty: the search has ended."""

    def tell(self, results: list[Scored]) -> None:
        """Take the results of the batch, in its order."""
