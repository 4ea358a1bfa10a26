"""Paths for training a supernet, taken more and more from those that have proved good (GreedyNAS, arXiv 2003.11236)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from razordeploy.compress.nas.search.limits import Bounded
from razordeploy.compress.nas.search.scored import Scored, best_of
from razordeploy.compress.nas.search.space import Subnet
from razordeploy.errors import ModelError, UsageError

SCHEDULES = ("linear", "exp", "cosine")


class GreedySampler:
    """A pool of good paths, and an exploit probability that rises with training.

    Each step trains a path of the pool with the probability of ``probability()``, else a random one. Each time
    ``refresh()`` is called, ``num_samples`` fresh paths are scored, and the best ``top_k`` of them and of the pool
    stay, at most ``pool_size`` paths.

    Args:
        bounded: the space and its limits.
        seed: of all random choices.
        num_samples: paths that are scored at a time.
        top_k: how many of these join the pool.
        pool_size: most paths in the pool.
        prob_schedule: ``linear``, ``exp`` or ``cosine``: the way from ``init_prob`` to ``max_prob``.
        schedule_start: step from which the probability rises.
        schedule_end: step at which it arrives.
        init_prob: before.
        max_prob: after.
    """

    def __init__(
        self,
        bounded: Bounded,
        *,
        seed: int = 0,
        num_samples: int = 10,
        top_k: int = 5,
        pool_size: int = 1000,
        prob_schedule: str = "linear",
        schedule_start: int = 0,
        schedule_end: int = 10_000,
        init_prob: float = 0.0,
        max_prob: float = 0.8,
    ) -> None:
        if prob_schedule not in SCHEDULES:
            raise UsageError(f"expected prob_schedule to be one of {SCHEDULES}, got {prob_schedule!r}")
        if not 0 <= init_prob <= max_prob <= 1:
            raise UsageError(f"expected 0 <= init_prob <= max_prob <= 1, got {init_prob} and {max_prob}")
        if not 1 <= top_k <= num_samples or pool_size < top_k:
            raise UsageError(
                f"expected 1 <= top_k <= num_samples and top_k <= pool_size, got top_k={top_k}, "
                f"num_samples={num_samples}, pool_size={pool_size}"
            )
        if not 0 <= schedule_start < schedule_end:
            raise UsageError(f"expected 0 <= schedule_start < schedule_end, got {schedule_start} and {schedule_end}")
        self.bounded = bounded
        self.rng = random.Random(seed)
        self.num_samples, self.top_k, self.pool_size = num_samples, top_k, pool_size
        self.prob_schedule = prob_schedule
        self.schedule_start, self.schedule_end = schedule_start, schedule_end
        self.init_prob, self.max_prob = init_prob, max_prob
        self.pool: list[Scored] = []

    def probability(self, step: int) -> float:
        """Probability that ``step`` trains a path of the pool."""
        done = (step - self.schedule_start) / (self.schedule_end - self.schedule_start)
        if done <= 0:
            return self.init_prob
        return self.init_prob + (self.max_prob - self.init_prob) * _rise(self.prob_schedule, min(1.0, done))

    def sample(self, step: int) -> Subnet:
        """The path that ``step`` trains.

        Raises:
            ModelError: no path keeps to the limits.
        """
        if self.pool and self.rng.random() < self.probability(step):
            return dict(self.rng.choice(self.pool).subnet)
        return self._random()

    def refresh(self, score: Callable[[Sequence[Subnet]], Sequence[float | None]]) -> list[Scored]:
        """Score fresh paths, keep the best in the pool, and return what was scored.

        Args:
            score: of each path, higher is better; None where it failed.
        """
        paths = [self._random() for _ in range(self.num_samples)]
        results = [Scored(subnet=path, score=value) for path, value in zip(paths, score(paths), strict=True)]
        # The newest score of a path counts: the supernet has learned since.
        self.pool = best_of([*best_of(results, self.top_k), *self.pool], self.pool_size)
        return results

    def _random(self) -> Subnet:
        subnet = self.bounded.sample(self.rng)
        if subnet is None:
            self.bounded.check_reachable(self.rng)
            raise ModelError("no path keeps to the limits", hint="widen them")
        return subnet


def _rise(schedule: str, done: float) -> float:
    """From 0 to 1 as ``done`` does: ``exp`` is fast first, ``cosine`` slow at both ends."""
    if schedule == "linear":
        return done
    if schedule == "cosine":
        return (1 - math.cos(math.pi * done)) / 2
    return (1 - math.exp(-4 * done)) / (1 - math.exp(-4))
