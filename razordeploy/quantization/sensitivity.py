"""What quantizing each operation does to the model's outputs: alone, its weights and inputs apart, and in sum."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import fx

from razordeploy.quantization.draft import Draft
from razordeploy.quantization.plan import PlannedOp, QuantPlan
from razordeploy.quantization.simulate import simulate

PARTS = ("isolated", "weights", "activations", "cumulative")


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One variant of the model against the float one."""

    sqnr_db: float | None
    """Of the model's outputs; None: no difference."""
    drop: float | None = None
    """Loss of the metric in points; None: not measured."""


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """One operation; None where it has no such part."""

    node: str
    module: str
    op: str
    isolated: Effect
    """Only this operation rounds its inputs and its weight."""
    weights: Effect | None = None
    """Only its weight is rounded."""
    activations: Effect | None = None
    """Only its inputs are rounded."""
    cumulative: Effect | None = None
    """It and all operations before it round."""

    @property
    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


Measure = Callable[[fx.GraphModule], Effect]
"""Runs a simulation and compares it with the float model."""


def analyze(
    draft: Draft,
    measure: Measure,
    *,
    known: dict[str, Sensitivity] | None = None,
    parts: Collection[str] = PARTS,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[Sensitivity]:
    """Measure every operation that the draft's plan quantizes, in execution order.

    Args:
        draft: graph, plan and scales.
        measure: of one simulation.
        known: operation -> what an earlier, interrupted run measured; filled as this one goes.
        parts: which of ``PARTS`` are measured beside ``isolated``.
        tell: operations done, and how many there are.
    """
    done = {} if known is None else known
    ops = [op for op in draft.plan.ops if op.int8]
    for index, op in enumerate(ops):
        if op.node not in done:
            done[op.node] = _one(draft, measure, op, ops[: index + 1], parts)
        tell(index + 1, len(ops))
    return [done[op.node] for op in ops]


def _one(
    draft: Draft, measure: Measure, op: PlannedOp, so_far: Sequence[PlannedOp], parts: Collection[str]
) -> Sensitivity:
    def effect(nodes: set[str], kinds: tuple[str, ...]) -> Effect | None:
        plan = restricted(draft.plan, nodes, kinds)
        return measure(simulate(draft.captured, plan, draft.params)) if plan.points else None

    alone = effect({op.node}, ("weight", "activation"))
    found: dict[str, Effect | None] = {}
    if "weights" in parts:
        found["weights"] = effect({op.node}, ("weight",))
    if "activations" in parts:
        found["activations"] = effect({op.node}, ("activation",))
    if "cumulative" in parts:
        found["cumulative"] = effect({o.node for o in so_far}, ("weight", "activation"))
    return Sensitivity(
        node=op.node, module=op.module, op=op.kind, isolated=alone or Effect(sqnr_db=None, drop=None), **found
    )


def restricted(plan: QuantPlan, nodes: set[str], kinds: Collection[str]) -> QuantPlan:
    """The plan with those points alone that operations in ``nodes`` read."""
    points = []
    for point in plan.points:
        users = tuple(u for u in point.users if u in nodes)
        if users and point.kind in kinds:
            points.append(replace(point, users=users))
    return replace(plan, points=tuple(points))


def ranked(found: Sequence[Sensitivity]) -> list[Sensitivity]:
    """The most harmful first: by the SQNR that is left when an operation alone is quantized."""
    return sorted(found, key=lambda s: float("inf") if s.isolated.sqnr_db is None else s.isolated.sqnr_db)
