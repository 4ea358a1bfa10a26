"""What quantizing each operation does to the model's outputs: alone, its weights and inputs apart, and in sum."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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


Owners = dict[tuple[str, str], frozenset[str]]
"""``(node of a point, its user) -> int8 operations``, by the names of graph nodes."""
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
    owners = owners_of(draft)
    ops = [op for op in draft.plan.ops if op.int8]
    for index, op in enumerate(ops):
        if op.node not in done:
            done[op.node] = _one(draft, owners, measure, op, ops[: index + 1], parts)
        tell(index + 1, len(ops))
    return [done[op.node] for op in ops]


def _one(
    draft: Draft, owners: Owners, measure: Measure, op: PlannedOp, so_far: Sequence[PlannedOp], parts: Collection[str]
) -> Sensitivity:
    def effect(nodes: set[str], kinds: tuple[str, ...]) -> Effect | None:
        plan = restricted(draft.plan, owners, nodes, kinds)
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


def owners_of(draft: Draft) -> Owners:
    """Which int8 operations each reader of a point rounds for.

    A reader that only passes a grid on rounds for the operations behind it; a float operation that reads what an int8
    kernel stores, for that kernel.
    """
    nodes = {node.name: node for node in draft.captured.graph.nodes}
    planned = {op.node: op.int8 for op in draft.plan.ops}
    behind: dict[str, frozenset[str]] = {}
    for node in reversed(draft.captured.graph.nodes):
        own = {node.name} if planned.get(node.name) else set[str]()
        passed = () if node.name in planned else node.users
        behind[node.name] = frozenset(own.union(*(behind[u.name] for u in passed)))
    found: Owners = {}
    for point in draft.plan.points:
        every = frozenset[str]().union(*(behind[u] for u in point.users))
        writer = _writer(nodes[point.node], planned)
        for user in point.users:
            found[point.node, user] = behind[user] or (frozenset({writer}) if writer else every)
    return found


def _writer(node: fx.Node, planned: Mapping[str, bool]) -> str | None:
    """The int8 operation whose result ``node`` is, or is the activation of."""
    while node.name not in planned and node.args and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node.name if planned.get(node.name) else None


def restricted(plan: QuantPlan, owners: Owners, nodes: set[str], kinds: Collection[str]) -> QuantPlan:
    """The plan with those points alone that round for operations in ``nodes``."""
    points = []
    for point in plan.points:
        users = tuple(u for u in point.users if not nodes.isdisjoint(owners[point.node, u]))
        if users and point.kind in kinds:
            points.append(replace(point, users=users))
    return replace(plan, points=tuple(points))


def ranked(found: Sequence[Sensitivity]) -> list[Sensitivity]:
    """The most harmful first: by the SQNR that is left when an operation alone is quantized."""
    return sorted(found, key=lambda s: float("inf") if s.isolated.sqnr_db is None else s.isolated.sqnr_db)
