"""Searches by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from razordeploy.compress.nas.search.evolution import EvolutionSearch
from razordeploy.compress.nas.search.greedy import GreedySearch
from razordeploy.compress.nas.search.limits import Bounded
from razordeploy.compress.nas.search.random_search import RandomSearch
from razordeploy.compress.nas.search.scored import Searcher

SEARCHERS: dict[str, type] = {
    "evolution": EvolutionSearch,
    "greedy": GreedySearch,
    "random": RandomSearch,
}


def build_searcher(kind: str, options: Mapping[str, Any], bounded: Bounded, seed: int) -> Searcher:
    """The search called ``kind``.

    Raises:
        UsageError: arguments that do not fit each other.
        ModelError: a candidate that it is to begin with is not of the space.
    """
    keywords = dict(options)
    if kind == "greedy":
        targets = keywords.get("targets")
        return GreedySearch(
            bounded, **{**keywords, "targets": targets if isinstance(targets, list | tuple) else [targets]}
        )
    if "init_candidates" in keywords:
        keywords["init_candidates"] = [bounded.space.check(one) for one in keywords["init_candidates"]]
    searcher: Searcher = SEARCHERS[kind](bounded, seed=seed, **keywords)
    return searcher
