"""Evolutionary search (Guo et al. 2020, arXiv 1904.00420, section 3.4), without repetitions."""

from __future__ import annotations

import random
from collections.abc import Sequence

from razordeploy.compress.nas.search.limits import Bounded
from razordeploy.compress.nas.search.scored import Scored, best_of
from razordeploy.compress.nas.search.space import Subnet
from razordeploy.compress.nas.search.unseen import Unseen
from razordeploy.errors import UsageError


class EvolutionSearch:
    """Generations of mutations and crossovers of the best candidates so far.

    Every candidate is asked for once, and the best ones are distinct: duplicates would take the place of parents and
    of evaluations. A mutation changes one group at least, and a child outside the limits is moved inside, not thrown
    away: near a limit most children are outside.

    Args:
        bounded: the space and its limits.
        seed: of all random choices.
        max_epochs: generations, the first random one included.
        num_candidates: candidates of a generation; what mutation and crossover leave open is random.
        top_k: the best so far, which are the parents.
        num_mutation: candidates of a generation that are mutations of one parent.
        num_crossover: candidates of a generation that are crossed from two parents.
        mutation_prob: probability of each group to be drawn anew.
        crossover_prob: probability of each group to come from the second parent.
        init_candidates: part of the first generation, where they keep to the limits.
    """

    def __init__(
        self,
        bounded: Bounded,
        *,
        seed: int = 0,
        max_epochs: int = 20,
        num_candidates: int = 50,
        top_k: int = 10,
        num_mutation: int = 25,
        num_crossover: int = 25,
        mutation_prob: float = 0.1,
        crossover_prob: float = 0.5,
        init_candidates: Sequence[Subnet] = (),
    ) -> None:
        for name, value in (("max_epochs", max_epochs), ("num_candidates", num_candidates), ("top_k", top_k)):
            if value < 1:
                raise UsageError(f"expected {name} of at least 1, got {value}")
        if num_mutation + num_crossover > num_candidates:
            raise UsageError(
                f"expected at most {num_candidates} mutations and crossovers, the candidates of a generation, "
                f"got {num_mutation} and {num_crossover}",
                hint="raise num_candidates",
            )
        self.bounded = bounded
        self.rng = random.Random(seed)
        self.unseen = Unseen(bounded, self.rng)
        self.max_epochs = max_epochs
        self.num_candidates = num_candidates
        self.top_k = top_k
        self.num_mutation = num_mutation
        self.num_crossover = num_crossover
        self.mutation_prob = mutation_prob
        self.crossover_prob = crossover_prob
        self.init_candidates = list(init_candidates)
        self.epoch = 0
        self.top: list[Scored] = []

    @property
    def planned(self) -> int:
        """All generations, or the whole space where that is less."""
        return min(self.max_epochs * self.num_candidates, self.bounded.space.size)

    def ask(self) -> list[Subnet]:
        """The next generation."""
        if self.epoch >= self.max_epochs:
            return []
        self.epoch += 1
        if self.top:
            batch = self.unseen.drawn(self._mutated, self.num_mutation)
            if len(self.top) > 1:
                batch += self.unseen.drawn(self._crossed, self.num_crossover)
        else:
            batch = self.unseen.take(self.init_candidates)[: self.num_candidates]
        return batch + self.unseen.random(self.num_candidates - len(batch))

    def tell(self, results: list[Scored]) -> None:
        """Let the best of the generation join the parents."""
        self.top = best_of([*self.top, *results], self.top_k)

    def _mutated(self) -> Subnet | None:
        parent = self.rng.choice(self.top).subnet
        child = self.bounded.space.mutate(parent, self.rng, self.mutation_prob)
        if child == parent:
            name = self.rng.choice(list(parent))
            child = {**parent, name: self.rng.choice(self.bounded.space.groups[name])}
        return self.bounded.repaired(child, self.rng)

    def _crossed(self) -> Subnet | None:
        first, second = self.rng.sample(self.top, 2)
        child = self.bounded.space.cross(first.subnet, second.subnet, self.rng, self.crossover_prob)
        return self.bounded.repaired(child, self.rng)
