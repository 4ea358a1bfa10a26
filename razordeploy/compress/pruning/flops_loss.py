"""How far an expected cost is from its target."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_LOWER = 0.95
"""Share of the target above which a cost is not pushed down further."""


def _log_l1(cost: Tensor, target: float) -> Tensor:
    """Logarithm of the distance, nothing from 95 % of the target up to it (Guo et al. 2020, section 4.1)."""
    low = _LOWER * target
    value = float(cost.detach())
    if value < low:
        return torch.log((cost - target).abs())
    if value < target:
        return cost * 0
    return torch.log((cost - low).abs())


def _inverted_log_l1(cost: Tensor, target: float) -> Tensor:
    return -torch.log(1 / ((cost - target).abs() + 1e-5))


FLOPS_LOSSES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "inverted_log_l1": _inverted_log_l1,
    "l1": lambda cost, target: (cost - target).abs(),
    "l2": lambda cost, target: (cost - target).square(),
    "log_l1": _log_l1,
}
"""``(expected cost, target) -> scalar``, both in millions of multiply-adds."""
