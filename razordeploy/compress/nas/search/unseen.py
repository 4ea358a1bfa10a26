"""Subnets that keep to the limits and have not been asked for before."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from razordeploy.compress.nas.search.limits import Bounded
from razordeploy.compress.nas.search.space import Subnet, subnet_key

_TRIES_EACH = 20
"""Drawn for each subnet that is wanted before a batch stays short."""


class Unseen:
    """Remembers what was asked for.

    Args:
        bounded: the space and its limits.
        rng: where random choices come from.
    """

    def __init__(self, bounded: Bounded, rng: random.Random) -> None:
        self.bounded = bounded
        self.rng = rng
        self.keys: set[str] = set()

    def take(self, subnets: Iterable[Subnet]) -> list[Subnet]:
        """Those that are new and inside the limits, each once."""
        return [subnet for subnet in subnets if self._is_new(subnet) and self._admit(subnet)]

    def random(self, count: int) -> list[Subnet]:
        """``count`` random subnets; fewer where the space has no more, or none can be found."""
        return self.drawn(lambda: self.bounded.sample(self.rng), count)

    def drawn(self, draw: Callable[[], Subnet | None], count: int) -> list[Subnet]:
        """``count`` new subnets made by ``draw``, fewer where it repeats itself or fails.

        Args:
            draw: makes one that keeps to the limits; None: it could not.
            count: how many.
        """
        found: list[Subnet] = []
        for _ in range(count * _TRIES_EACH):
            if len(found) == count or len(self.keys) >= self.bounded.space.size:
                break
            subnet = draw()
            if subnet is not None and self._is_new(subnet):
                self.keys.add(subnet_key(subnet))
                found.append(subnet)
        return found

    def _is_new(self, subnet: Subnet) -> bool:
        return subnet_key(subnet) not in self.keys

    def _admit(self, subnet: Subnet) -> bool:
        if not self.bounded.allows(subnet):
            return False
        self.keys.add(subnet_key(subnet))
        return True
