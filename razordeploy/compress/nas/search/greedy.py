"""Greedy slimming (AutoSlim, Yu and Huang 2019, arXiv 1903.11728, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from razordeploy.compress.nas.search.limits import Bounded
from razordeploy.compress.nas.search.scored import Scored
from razordeploy.compress.nas.search.space import Subnet, subnet_key
from razordeploy.errors import ModelError, UsageError


class GreedySearch:
    """From the largest subnet downwards: each step shrinks the one group that costs the least score.

    A step tries every group one choice smaller and keeps the best; it goes on until all targets are met. Of candidates
    with equal scores the cheaper stays.

    Args:
        bounded: the space; its choices are ordered from small to large. Its costs say when a target is met, and limits
            of other indicators are kept to where a smaller choice does.
        targets: highest allowed value of ``resource``, largest first or not; the search ends at the smallest.
        resource: indicator that the targets are of.

    Raises:
        UsageError: no targets.
        ModelError: even the smallest subnet is above a target.
    """

    def __init__(self, bounded: Bounded, *, targets: Sequence[float], resource: str = "macs") -> None:
        if not targets:
            raise UsageError("greedy search needs at least one target", hint="target_flops=[500, 300]")
        self.bounded = bounded
        self.resource = resource
        self.targets = sorted((float(target) for target in targets), reverse=True)
        self.found: dict[float, Scored] = {}
        """The first subnet of the descent that meets each target."""
        self._known: dict[str, Scored] = {}
        self._steps: list[Subnet] = []
        smallest = {name: choices[0] for name, choices in bounded.space.groups.items()}
        least = self._cost(smallest)
        if least > self.targets[-1]:
            raise ModelError(
                f"no subnet has {resource} of at most {self.targets[-1]:.4g}: the smallest has {least:.4g}",
                hint="raise the target, or give the search space smaller choices",
            )
        self.current: Subnet = {name: choices[-1] for name, choices in bounded.space.groups.items()}
        self._started = False

    @property
    def planned(self) -> int | None:
        """How many steps it takes shows only as it goes."""
        return None

    def ask(self) -> list[Subnet]:
        """The largest subnet, then the neighbours of the current one that are not known yet."""
        if not self._started:
            self._started = True
            return [dict(self.current)]
        while len(self.found) < len(self.targets):
            self._steps = self._smaller()
            new = [subnet for subnet in self._steps if subnet_key(subnet) not in self._known]
            if new or not self._steps:
                return new
            self._step()
        return []

    def tell(self, results: list[Scored]) -> None:
        """Take the best step."""
        first = not self._known
        self._known.update({one.key: one for one in results})
        if first:
            if results:
                self._note(results[0])
            return
        self._step()

    def _step(self) -> None:
        scored = [self._known[subnet_key(subnet)] for subnet in self._steps]
        best = max(scored, key=lambda one: (one.value, -self._cost(one.subnet)))
        self.current = best.subnet
        self._note(best)

    def _note(self, one: Scored) -> None:
        for target in self.targets:
            if target not in self.found and self._cost(one.subnet) <= target:
                self.found[target] = one

    def _smaller(self) -> list[Subnet]:
        steps = []
        for name, choices in self.bounded.space.groups.items():
            index = choices.index(self.current[name])
            if index:
                steps.append({**self.current, name: choices[index - 1]})
        return steps

    def _cost(self, subnet: Subnet) -> float:
        costs: Mapping[str, float] = self.bounded.costs(subnet)
        return float(costs[self.resource])
