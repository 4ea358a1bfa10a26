"""A plan's grids in a few records: what a reader of a report wants to know of the scheme."""

from __future__ import annotations

from collections import Counter
from typing import Any

from razordeploy.config.scheme import QScheme
from razordeploy.quantization.plan import QuantPlan


def scheme_records(plan: QuantPlan) -> list[dict[str, Any]]:
    """Every kind of grid in ``plan``, the most frequent first.

    Returns:
        ``role`` (activation, weight), ``dtype`` (uint8, int8, int4 ...), ``symmetric``, ``per_channel``, ``observer``
        and ``tensors``, how many tensors have a grid of this kind.
    """
    found = Counter(
        (p.kind, _dtype(p.scheme), p.scheme.symmetric, p.scheme.ch_axis is not None, p.observer.type)
        for p in plan.points
    )
    return [
        {
            "role": role,
            "dtype": dtype,
            "symmetric": symmetric,
            "per_channel": per_channel,
            "observer": observer,
            "tensors": count,
        }
        for (role, dtype, symmetric, per_channel, observer), count in found.most_common()
    ]


def _dtype(scheme: QScheme) -> str:
    return f"{'int' if scheme.signed else 'uint'}{scheme.bits}"
