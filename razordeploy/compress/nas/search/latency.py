"""Latency of any subnet from those of a few that were measured as engines: a lookup table by choice, fitted."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from razordeploy.compress.nas.search.limits import Costs
from razordeploy.compress.nas.search.space import SearchSpace, Subnet, subnet_key
from razordeploy.errors import ModelError, UsageError

Measure = Callable[[Subnet], float]
"""Builds an engine of a subnet and measures it: milliseconds."""

_PENALTIES = tuple(10.0**power for power in range(-4, 3))
_LEAST = 4


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """A latency in milliseconds for every choice of every group, one for each million multiply-accumulates, and a rest.

    Together they are the latency of a subnet. They come from ridge regression on whole engines, since an engine fuses
    layers: the latencies of parts do not add up.
    """

    space: SearchSpace
    rest_ms: float
    per_mmac_ms: float
    choices_ms: tuple[float, ...]
    """In the order of the space's groups and their choices."""
    mape: float
    """Mean absolute error in percent of the latency, of measured subnets that were left out of the fit one by one."""
    measured: tuple[tuple[Subnet, float], ...]
    """Subnets and their latency in milliseconds."""

    def __call__(self, subnet: Subnet, macs: float) -> float:
        """Latency in milliseconds of a subnet with so many million multiply-accumulates."""
        table = sum(ms for ms, on in zip(self.choices_ms, self.space.encode(subnet), strict=True) if on)
        return max(0.0, self.rest_ms + self.per_mmac_ms * macs + table)

    def dump(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "rest_ms": self.rest_ms,
            "per_mmac_ms": self.per_mmac_ms,
            "choices_ms": list(self.choices_ms),
            "mape": self.mape,
            "measured": [[subnet, ms] for subnet, ms in self.measured],
        }


def fit_latency(space: SearchSpace, measured: Sequence[tuple[Subnet, float]], costs: Costs) -> LatencyTable:
    """Fit the table; the ridge penalty is the one with the least error on subnets that are left out.

    Args:
        space: what is chosen from.
        measured: subnets with their latency in milliseconds.
        costs: gives ``macs`` in millions.

    Raises:
        UsageError: fewer than four subnets.
    """
    if len(measured) < _LEAST:
        raise UsageError(f"expected at least {_LEAST} measured subnets to fit latencies to, got {len(measured)}")
    macs = np.array([costs(subnet)["macs"] for subnet, _ in measured])
    y = np.array([ms for _, ms in measured])
    scale = max(float(macs.max()), 1e-12)
    # The work of all layers together explains most; a choice gets what is left.
    x = np.column_stack([4.0 * macs / scale, np.array([space.encode(subnet) for subnet, _ in measured])])
    fits = [_ridge(x, y, penalty) for penalty in _PENALTIES]
    weights, rest, left_out = min(fits, key=lambda fit: float(np.mean(np.abs(fit[2]) / y)))
    return LatencyTable(
        space=space,
        rest_ms=rest,
        per_mmac_ms=float(weights[0] * 4.0 / scale),
        choices_ms=tuple(float(w) for w in weights[1:]),
        mape=float(100 * np.mean(np.abs(left_out) / y)),
        measured=tuple((dict(subnet), float(ms)) for subnet, ms in measured),
    )


def _ridge(x: Any, y: Any, penalty: float) -> tuple[Any, float, Any]:
    """Weights, intercept, and the error for each row by the fit without it (in closed form)."""
    centre, mean = x.mean(0), y.mean()
    z = x - centre
    inverse = np.linalg.inv(z.T @ z + penalty * np.eye(z.shape[1]))
    weights = inverse @ z.T @ (y - mean)
    leverage = np.einsum("ij,jk,ik->i", z, inverse, z) + 1 / len(y)
    residual = y - mean - z @ weights
    return weights, float(mean - centre @ weights), residual / np.maximum(1 - leverage, 1e-9)


def subnets_to_measure(space: SearchSpace, count: int, seed: int = 0) -> list[Subnet]:
    """The smallest and the largest subnet and random ones, distinct; over all of them every choice comes equally often.

    Raises:
        ModelError: the space has fewer than four subnets.
    """
    if space.size < _LEAST:
        raise ModelError(f"a space of {space.size} subnets is too small to fit latencies to: measure them all")
    rng = random.Random(seed)
    ends = [{name: choices[end] for name, choices in space.groups.items()} for end in (0, -1)]
    found = {subnet_key(subnet): subnet for subnet in ends}
    wanted = min(count, space.size)
    while len(found) < wanted:
        # One row for each position of a Latin square: each column runs through its choices in a random order.
        rows = max(len(choices) for choices in space.groups.values())
        columns = {name: _turn(choices, rows, rng) for name, choices in space.groups.items()}
        for row in range(rows):
            subnet = {name: column[row] for name, column in columns.items()}
            if len(found) < wanted:
                found.setdefault(subnet_key(subnet), subnet)
    return list(found.values())


def _turn(choices: Sequence[Any], rows: int, rng: random.Random) -> list[Any]:
    column: list[Any] = []
    while len(column) < rows:
        column += rng.sample(list(choices), len(choices))
    return column[:rows]
