"""A search space as a searcher sees it: named groups, each with a few choices; no model."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from razordeploy.errors import ModelError, nearest
from razordeploy.strict_json import jsonable

Subnet: TypeAlias = dict[str, Any]
"""Choice by group."""

_MOST_COMBINATIONS = 10_000


def subnet_key(subnet: Mapping[str, Any]) -> str:
    """The same text for equal subnets, whatever the order of their groups."""
    return json.dumps(jsonable(subnet), sort_keys=True)


@dataclass(frozen=True)
class SearchSpace:
    """Choices by group, in an order from small to large where there is one.

    Raises:
        ModelError: there are no groups, or one has no choice.
    """

    groups: Mapping[str, tuple[Any, ...]]

    def __post_init__(self) -> None:
        if not self.groups:
            raise ModelError("the supernet has nothing to choose", hint="give it mutables, or search another model")
        for name, choices in self.groups.items():
            if not choices:
                raise ModelError(f"the search group '{name}' has no choices")

    @classmethod
    def of_mutator(cls, mutator: Any) -> SearchSpace:
        """The space of a prepared mutator.

        Raises:
            ModelError: as above, or a group whose choices cannot be listed.
        """
        return cls.of_groups(mutator.search_groups)

    @classmethod
    def of_groups(cls, search_groups: Mapping[str, Sequence[Any]]) -> SearchSpace:
        """The same of its groups: members by name."""
        return cls({name: _choices(name, members[0]) for name, members in search_groups.items()})

    @property
    def size(self) -> int:
        """Number of subnets."""
        return math.prod(len(choices) for choices in self.groups.values())

    def fingerprint(self) -> str:
        """Text that two equal spaces share."""
        return json.dumps(jsonable({name: list(choices) for name, choices in self.groups.items()}), sort_keys=True)

    def check(self, subnet: Mapping[str, Any]) -> Subnet:
        """The subnet with the space's own values: a file may hold a list where the space has a tuple.

        Raises:
            ModelError: a group is missing or unknown, or a choice is none.
        """
        for name in subnet:
            if name not in self.groups:
                raise ModelError(f"the subnet chooses '{name}', which is no group", hint=nearest(name, self.groups))
        found = {}
        for name, choices in self.groups.items():
            if name not in subnet:
                raise ModelError(f"the subnet has no choice for the group '{name}'", hint=nearest(name, subnet))
            wanted = jsonable(subnet[name])
            match = [choice for choice in choices if jsonable(choice) == wanted]
            if not match:
                raise ModelError(f"group '{name}': expected one of {list(choices)}, got {subnet[name]!r}")
            found[name] = match[0]
        return found

    def sample(self, rng: random.Random) -> Subnet:
        """Every choice with the same probability."""
        return {name: rng.choice(choices) for name, choices in self.groups.items()}

    def mutate(self, subnet: Subnet, rng: random.Random, probability: float) -> Subnet:
        """Draw each group anew with ``probability``."""
        return {
            name: rng.choice(choices) if rng.random() < probability else subnet[name]
            for name, choices in self.groups.items()
        }

    def cross(self, first: Subnet, second: Subnet, rng: random.Random, probability: float) -> Subnet:
        """Each group of ``first``, or with ``probability`` that of ``second``."""
        return {name: second[name] if rng.random() < probability else first[name] for name in self.groups}

    def encode(self, subnet: Mapping[str, Any], encoding: str = "onehot") -> list[float]:
        """A vector of ``subnet``: ``onehot``, one entry a choice; or ``normal``, position of each choice in its group.

        Raises:
            ModelError: a choice that the group has not, or an unknown encoding.
        """
        if encoding not in ENCODINGS:
            raise ModelError(f"unknown encoding '{encoding}'", hint=nearest(encoding, ENCODINGS))
        vector: list[float] = []
        for name, choices in self.groups.items():
            try:
                index = choices.index(subnet[name])
            except (KeyError, ValueError):
                raise ModelError(f"group '{name}': expected one of {list(choices)}, got {subnet.get(name)!r}") from None
            if encoding == "normal":
                vector.append(float(index))
            else:
                vector += [float(index == position) for position in range(len(choices))]
        return vector

    def decode(self, vector: Sequence[float], encoding: str = "onehot") -> Subnet:
        """The subnet that ``encode`` made ``vector`` of; of a vector between subnets the nearest."""
        left = list(vector)
        subnet: Subnet = {}
        for name, choices in self.groups.items():
            if encoding == "normal":
                subnet[name] = choices[min(len(choices) - 1, max(0, round(left.pop(0))))]
            else:
                part, left = left[: len(choices)], left[len(choices) :]
                subnet[name] = choices[max(range(len(choices)), key=part.__getitem__)]
        return subnet


ENCODINGS = ("onehot", "normal")


def _choices(name: str, member: Any) -> tuple[Any, ...]:
    """What may be set on ``member``: its choices, or of a route every set of so many edges."""
    choices = tuple(member.choices)
    wanted = getattr(member, "num_chosen", None)
    if wanted is None:
        return choices
    if math.comb(len(choices), wanted) > _MOST_COMBINATIONS:
        raise ModelError(f"the route '{name}' has too many sets of {wanted} among {len(choices)} edges to list")
    return tuple(itertools.combinations(choices, wanted))
