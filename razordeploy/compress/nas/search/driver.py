"""The loop of a search, with or without a predictor of the score."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from razordeploy.compress.nas.search.limits import Bounded
from razordeploy.compress.nas.search.scored import Scored, Searcher, best_of
from razordeploy.compress.nas.search.space import Subnet
from razordeploy.compress.nas.search.unseen import Unseen
from razordeploy.errors import ModelError

Evaluate = Callable[[list[Subnet]], list[Scored]]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a search has found."""

    scored: list[Scored]
    """Every candidate that was evaluated, failed ones too, in the order they were asked for."""
    predictor: dict[str, Any] = field(default_factory=dict)
    """How good the predictor was, where there was one."""

    def best(self) -> Scored:
        """The candidate with the highest score.

        Raises:
            ModelError: not one has a score.
        """
        found = best_of(self.scored, 1)
        if not found:
            raise ModelError("the search has no candidate with a score", hint="widen its limits")
        return found[0]


def run_search(searcher: Searcher, evaluate: Evaluate) -> Outcome:
    """Ask and tell until the search ends."""
    scored: list[Scored] = []
    while batch := searcher.ask():
        results = evaluate(batch)
        searcher.tell(results)
        scored += results
    return Outcome(scored=scored)


def run_predicted_search(
    searcher: Searcher,
    evaluate: Evaluate,
    predictor: Any,
    bounded: Bounded,
    *,
    train_samples: int,
    verify: int,
    seed: int,
) -> Outcome:
    """Fit ``predictor`` to random candidates, search by what it says, and evaluate the best of that.

    Args:
        searcher: is told predictions.
        evaluate: measures.
        predictor: a ``MetricPredictor``.
        bounded: where the random candidates come from.
        train_samples: random candidates that are evaluated.
        verify: candidates, the best by prediction, that are evaluated.
        seed: of the random candidates.

    Raises:
        ModelError: too few candidates could be scored.
    """
    first = evaluate(Unseen(bounded, random.Random(seed)).random(train_samples))
    known = {one.key: one for one in first}
    usable = [one for one in first if one.score is not None]
    predictor.fit([one.subnet for one in usable], [one.value for one in usable])

    def predict(batch: list[Subnet]) -> list[Scored]:
        values = predictor.predict_subnets(batch)
        return [Scored(subnet=s, score=float(v), predicted=True) for s, v in zip(batch, values, strict=True)]

    predicted = run_search(searcher, predict).scored
    fresh = [one for one in best_of(predicted, len(predicted)) if one.key not in known][:verify]
    checked = evaluate([one.subnet for one in fresh]) if fresh else []
    info = {
        "type": type(predictor.handler).__name__,
        "trained_on": len(usable),
        "predicted": len(predicted),
        "left_out": predictor.left_out,
        "verified": [
            {"predicted": one.score, "measured": real.score} for one, real in zip(fresh, checked, strict=True)
        ],
    }
    return Outcome(scored=[*first, *checked], predictor=info)
