"""Random search: the baseline that every other search has to beat."""

from __future__ import annotations

import random

from razordeploy.compress.nas.search.limits import Bounded
from razordeploy.compress.nas.search.scored import Scored
from razordeploy.compress.nas.search.space import Subnet
from razordeploy.compress.nas.search.unseen import Unseen
from razordeploy.errors import UsageError


class RandomSearch:
    """Distinct random candidates within the limits.

    Args:
        bounded: the space and its limits.
        seed: of all random choices.
        max_candidates: how many.
        batch: how many are asked for at a time.
    """

    def __init__(self, bounded: Bounded, *, seed: int = 0, max_candidates: int = 1000, batch: int = 50) -> None:
        for name, value in (("max_candidates", max_candidates), ("batch", batch)):
            if value < 1:
                raise UsageError(f"expected {name} of at least 1, got {value}")
        self.bounded = bounded
        self.unseen = Unseen(bounded, random.Random(seed))
        self.max_candidates = max_candidates
        self.batch = batch

    @property
    def planned(self) -> int:
        """All candidates, or the whole space where that is less."""
        return min(self.max_candidates, self.bounded.space.size)

    def ask(self) -> list[Subnet]:
        """The next batch."""
        return self.unseen.random(min(self.batch, self.max_candidates - len(self.unseen.keys)))

    def tell(self, results: list[Scored]) -> None:
        """Nothing is learned from results."""
