"""Searches on a landscape whose best subnet is known: ``python tools/bench/search_landscape.py``.

20 layers of 4 operations; a subnet's score is a sum over layers and over neighbouring layers, its cost a sum over
layers with a cap at about the middle, so that the best subnet follows by dynamic programming. The normalised score is 0
for the mean of random subnets inside the cap and 1 for the best. Every search gets the same number of evaluations.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

from razordeploy.compress.nas.search.evolution import EvolutionSearch
from razordeploy.compress.nas.search.limits import Bounded, Limits
from razordeploy.compress.nas.search.random_search import RandomSearch
from razordeploy.compress.nas.search.scored import Scored, Searcher, best_of
from razordeploy.compress.nas.search.space import SearchSpace, Subnet


class Landscape:
    """A random chain of ``layers`` with ``ops`` operations each; integer costs from 1 to 20."""

    def __init__(self, seed: int, layers: int = 20, ops: int = 4) -> None:
        rng = random.Random(seed)
        self.layers, self.ops = layers, ops
        self.cost = [[rng.randint(1, 20) for _ in range(ops)] for _ in range(layers)]
        # What costs more is better on average, or the cap would not bind.
        self.own = [[rng.gauss(0, 1) + 0.15 * self.cost[i][op] for op in range(ops)] for i in range(layers)]
        self.pair = [[[rng.gauss(0, 0.5) for _ in range(ops)] for _ in range(ops)] for _ in range(layers - 1)]
        self.cap = sum(round(statistics.mean(row)) for row in self.cost)
        self.space = SearchSpace({f"layer{i}": tuple(range(ops)) for i in range(layers)})
        self.bounded = Bounded(self.space, self.costs, Limits({"macs": (0.0, float(self.cap))}))

    def path(self, subnet: Subnet) -> list[int]:
        """Operation by layer."""
        return [subnet[f"layer{i}"] for i in range(self.layers)]

    def costs(self, subnet: Subnet) -> dict[str, float]:
        """The only indicator, ``macs``."""
        return {"macs": float(sum(row[op] for row, op in zip(self.cost, self.path(subnet), strict=True)))}

    def score(self, subnet: Subnet) -> float:
        """Higher is better."""
        path = self.path(subnet)
        own = sum(row[op] for row, op in zip(self.own, path, strict=True))
        return own + sum(pair[a][b] for pair, a, b in zip(self.pair, path[:-1], path[1:], strict=True))

    def optimum(self) -> float:
        """The best score inside the cap: dynamic programming over layer, operation and cost so far."""
        best = {(op, self.cost[0][op]): self.own[0][op] for op in range(self.ops)}
        for i in range(1, self.layers):
            after: dict[tuple[int, int], float] = {}
            for (before, spent), value in best.items():
                for op in range(self.ops):
                    total = spent + self.cost[i][op]
                    if total <= self.cap:
                        now = value + self.own[i][op] + self.pair[i - 1][before][op]
                        if now > after.get((op, total), float("-inf")):
                            after[op, total] = now
            best = after
        return max(best.values())

    def mean(self, count: int = 2000) -> float:
        """The mean score of random subnets inside the cap."""
        rng = random.Random(1)
        drawn = (self.space.sample(rng) for _ in range(20 * count))
        inside = [self.score(subnet) for subnet in drawn if self.bounded.allows(subnet)]
        return statistics.mean(inside[:count])


def run(searcher: Searcher, landscape: Landscape, budget: int) -> tuple[Scored, list[Scored]]:
    """The best candidate and everything that was evaluated, at most ``budget`` candidates."""
    seen: list[Scored] = []
    while len(seen) < budget and (batch := searcher.ask()):
        results = [Scored(subnet=one, score=landscape.score(one), costs=landscape.costs(one)) for one in batch]
        searcher.tell(results)
        seen += results
    return best_of(seen[:budget], 1)[0], seen[:budget]


SEARCHES: dict[str, Callable[[Landscape, int, int], Searcher]] = {
    "random": lambda land, seed, budget: RandomSearch(land.bounded, seed=seed, max_candidates=budget),
    "evolution": lambda land, seed, budget: EvolutionSearch(land.bounded, seed=seed, max_epochs=-(-budget // 50)),
}


def compare(seeds: int, budget: int) -> dict[str, list[float]]:
    """Normalised score of each search, one for every seed; a landscape of its own for every seed."""
    found: dict[str, list[float]] = {name: [] for name in SEARCHES}
    for seed in range(seeds):
        landscape = Landscape(seed)
        low, high = landscape.mean(), landscape.optimum()
        for name, make in SEARCHES.items():
            best, seen = run(make(landscape, seed, budget), landscape, budget)
            if len({one.key for one in seen}) != budget or not all(
                landscape.bounded.allows(one.subnet) for one in seen
            ):
                raise RuntimeError(f"{name}, seed {seed}: candidates repeat, or are outside the cap")
            found[name].append((landscape.score(best.subnet) - low) / (high - low))
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--budget", type=int, default=1000)
    args = parser.parse_args()
    start = time.process_time()
    found = compare(args.seeds, args.budget)
    for name, values in found.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:10} normalised score {statistics.mean(values):.3f} ± {spread:.3f}, least {min(values):.3f}")
    wins = sum(a > b for a, b in zip(found["evolution"], found["random"], strict=True))
    print(f"evolution beats random in {wins} of {args.seeds} runs of {args.budget} evaluations")
    print(f"{time.process_time() - start:.1f} CPU s")


if __name__ == "__main__":
    main()
