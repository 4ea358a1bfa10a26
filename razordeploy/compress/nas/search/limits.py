"""What a subnet may cost: ranges by indicator, and subnets that keep to them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from razordeploy.compress.nas.search.space import SearchSpace, Subnet
from razordeploy.errors import ModelError

Costs = Callable[[Subnet], Mapping[str, float]]
"""What a subnet costs, by indicator; ``macs``, ``flops`` and ``params`` in millions, latencies in milliseconds."""

_TRIES = 50
"""Random subnets that are drawn before one is moved into the limits step by step."""


@dataclass(frozen=True)
class Limits:
    """Lowest and highest allowed value by indicator; both bounds are allowed themselves."""

    ranges: Mapping[str, tuple[float, float]]

    def violation(self, costs: Mapping[str, float]) -> float:
        """How far ``costs`` are outside, as a share of the bound, summed up; 0 inside.

        Raises:
            ModelError: an indicator that is not among ``costs``.
        """
        total = 0.0
        for name, (low, high) in self.ranges.items():
            value = costs.get(name)
            if value is None:
                raise ModelError(f"a constraint on '{name}', which is not measured; measured: {', '.join(costs)}")
            if not math.isfinite(value):
                return math.inf
            if value < low:
                total += (low - value) / max(abs(low), 1e-12)
            elif value > high:
                total += (value - high) / max(abs(high), 1e-12)
        return total

    def allow(self, costs: Mapping[str, float]) -> bool:
        """Tell whether ``costs`` are inside every range."""
        return self.violation(costs) == 0.0


class Bounded:
    """Draws subnets that keep to limits.

    Args:
        space: what is chosen from.
        costs: what a subnet costs; not called where there are no limits.
        limits: what it may cost.
    """

    def __init__(self, space: SearchSpace, costs: Costs | None = None, limits: Limits | None = None) -> None:
        self.space = space
        self.costs: Costs = costs or (lambda subnet: {})
        self.limits = limits or Limits({})
        self.checked = 0
        """Subnets that were held against the limits so far."""

    def allows(self, subnet: Subnet) -> bool:
        """Tell whether ``subnet`` keeps to the limits."""
        return self.violation(subnet) == 0.0

    def violation(self, subnet: Subnet) -> float:
        """As of ``Limits``."""
        if not self.limits.ranges:
            return 0.0
        self.checked += 1
        return self.limits.violation(self.costs(subnet))

    def sample(self, rng: random.Random) -> Subnet | None:
        """A random subnet inside the limits: the first of some, or one that was moved inside; None: none was found."""
        best, least = None, math.inf
        for _ in range(_TRIES):
            subnet = self.space.sample(rng)
            outside = self.violation(subnet)
            if outside == 0.0:
                return subnet
            if outside < least:
                best, least = subnet, outside
        return None if best is None else self.repaired(best, rng)

    def repaired(self, subnet: Subnet, rng: random.Random) -> Subnet | None:
        """``subnet`` where it keeps to the limits, else one near it that does; None: none was found.

        One group after another, in a random order, changes to what is less outside.
        """
        outside = self.violation(subnet)
        if outside == 0.0:
            return subnet
        names = list(self.space.groups)
        improved = True
        while improved:
            improved = False
            rng.shuffle(names)
            for name in names:
                # Any improvement will do: the best one would lead all subnets to the same place.
                for choice in rng.sample(self.space.groups[name], len(self.space.groups[name])):
                    changed = {**subnet, name: choice}
                    now = self.violation(changed)
                    if now < outside:
                        subnet, outside, improved = changed, now, True
                        if outside == 0.0:
                            return subnet
                        break
        return None

    def check_reachable(self, rng: random.Random) -> None:
        """Refuse limits that no subnet keeps to.

        Raises:
            ModelError: a range lies outside of what the space reaches, or no subnet was found that keeps to all; says
                the reachable ranges.
        """
        if not self.limits.ranges:
            return
        for _ in range(4):
            if self.sample(rng) is not None:
                return
        reach = {name: self.reach(name) for name in self.limits.ranges}
        wrong = [
            name for name, (low, high) in self.limits.ranges.items() if reach[name][0] > high or reach[name][1] < low
        ]
        shown = wrong or list(self.limits.ranges)
        asked = ", ".join(f"{name} in {_span(self.limits.ranges[name])}" for name in shown)
        reached = ", ".join(f"{name} {_span(reach[name])}" for name in shown)
        what = "no subnet has" if wrong else "no subnet was found with"
        raise ModelError(f"{what} {asked}: this space reaches {reached}", hint="widen the range, or the search space")

    def reach(self, name: str) -> tuple[float, float]:
        """The least and the most of one indicator, found by changing one group at a time."""

        def value(subnet: Subnet) -> float:
            return float(self.costs(subnet)[name])

        return self._extreme(value, 1.0), -self._extreme(value, -1.0)

    def _extreme(self, value: Callable[[Subnet], float], sign: float) -> float:
        subnet: Subnet = {group: choices[0] for group, choices in self.space.groups.items()}
        least, improved = sign * value(subnet), True
        while improved:
            improved = False
            for group, choices in self.space.groups.items():
                for choice in choices:
                    changed: dict[str, Any] = {**subnet, group: choice}
                    now = sign * value(changed)
                    if now < least:
                        subnet, least, improved = changed, now, True
        return least


def _span(bounds: tuple[float, float]) -> str:
    return f"[{bounds[0]:.4g}, {bounds[1]:.4g}]"
