"""Subnets under comparison, each with its score and what it costs."""

from __future__ import annotations

import json
from collections import UserList
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from razordeploy.errors import UsageError, nearest
from razordeploy.strict_json import jsonable

INDICATORS = ("score", "flops", "params", "latency")
"""What is known of a candidate; ``flops`` and ``params`` in millions, ``latency`` in milliseconds."""


@dataclass(kw_only=True)
class Candidate:
    """One subnet."""

    subnet: dict[str, Any]
    """Choice by search group."""
    indicators: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(INDICATORS))
    """By name; None: not measured yet."""

    @property
    def key(self) -> str:
        """The same text for equal subnets, whatever the order of their groups."""
        return json.dumps(jsonable(self.subnet), sort_keys=True)


class Candidates(UserList[Candidate]):
    """A list of candidates.

    Whatever is put in may be a ``Candidate``, a subnet, or a pair of a subnet and its indicators.
    """

    def __init__(self, initdata: Iterable[Any] | Mapping[str, Any] | None = None) -> None:
        given = () if initdata is None else [initdata] if isinstance(initdata, Mapping) else initdata
        super().__init__([_candidate(item) for item in given])

    @property
    def subnets(self) -> list[dict[str, Any]]:
        """The choices of each candidate."""
        return [candidate.subnet for candidate in self.data]

    @property
    def scores(self) -> list[float | None]:
        """The score of each candidate; None where it has none yet."""
        return self.resources("score")

    def resources(self, key_indicator: str = "flops") -> list[float | None]:
        """One indicator of each candidate; None where it is not measured yet."""
        _check_indicator(key_indicator)
        return [candidate.indicators.get(key_indicator) for candidate in self.data]

    def append(self, item: Any) -> None:
        """Add one candidate."""
        self.data.append(_candidate(item))

    def insert(self, i: int, item: Any) -> None:
        """Add one candidate before position ``i``."""
        self.data.insert(i, _candidate(item))

    def extend(self, other: Iterable[Any]) -> None:
        """Add several candidates."""
        self.data.extend(_candidate(item) for item in other)

    def set_score(self, i: int, score: float) -> None:
        """Set the score of candidate ``i``."""
        self.set_resource(i, score, "score")

    def set_resource(self, i: int, value: float, key_indicator: str = "flops") -> None:
        """Set one indicator of candidate ``i``."""
        _check_indicator(key_indicator)
        self.data[i].indicators[key_indicator] = float(value)

    def update_resources(self, resources: Sequence[Mapping[str, float]], start: int = 0) -> None:
        """Set indicators of the candidates from ``start`` on.

        Raises:
            UsageError: there are not so many candidates, or an indicator is unknown.
        """
        if start < 0 or start + len(resources) > len(self.data):
            raise UsageError(
                f"expected resources for at most {max(0, len(self.data) - start)} candidates from {start} on, "
                f"got {len(resources)}"
            )
        for candidate, found in zip(self.data[start:], resources, strict=False):
            for key, value in found.items():
                _check_indicator(key)
                candidate.indicators[key] = float(value)

    def sort_by(self, key_indicator: str = "score", reverse: bool = True) -> None:
        """Sort by an indicator, the largest first unless ``reverse`` is false; what is not measured goes last."""
        _check_indicator(key_indicator)
        sign = -1.0 if reverse else 1.0

        def rank(candidate: Candidate) -> tuple[bool, float]:
            value = candidate.indicators.get(key_indicator)
            return (value is None, 0.0 if value is None else sign * value)

        self.data.sort(key=rank)

    def distinct(self) -> Candidates:
        """The same without repetitions of a subnet; the first of each stays."""
        first: dict[str, Candidate] = {}
        for candidate in self.data:
            first.setdefault(candidate.key, candidate)
        return Candidates(first.values())

    def dump(self) -> list[dict[str, Any]]:
        """Plain dicts ``{"subnet": ..., "score": ..., ...}`` for a JSON file."""
        return [{"subnet": jsonable(candidate.subnet), **candidate.indicators} for candidate in self.data]

    @classmethod
    def load(cls, content: Iterable[Mapping[str, Any]]) -> Candidates:
        """The candidates that ``dump()`` gave."""
        return cls((entry["subnet"], {k: v for k, v in entry.items() if k != "subnet"}) for entry in content)


def _candidate(item: Any) -> Candidate:
    if isinstance(item, Candidate):
        return item
    subnet, indicators = item if isinstance(item, tuple) and len(item) == 2 else (item, {})
    if not isinstance(subnet, Mapping) or not isinstance(indicators, Mapping):
        raise UsageError(f"expected a subnet, or a subnet and its indicators, got {item!r}")
    for key in indicators:
        _check_indicator(key)
    return Candidate(subnet=dict(subnet), indicators={**dict.fromkeys(INDICATORS), **indicators})


def _check_indicator(name: str) -> None:
    if name not in INDICATORS:
        raise UsageError(f"unknown indicator '{name}'", hint=nearest(name, INDICATORS))
