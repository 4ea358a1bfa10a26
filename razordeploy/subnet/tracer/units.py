"""From the axes of a graph to its units: what has to go together, under which name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from razordeploy.subnet.tracer.axes import LEAF, PROD, Axis, find, leaves
from razordeploy.subnet.tracer.layout import spans
from razordeploy.subnet.tracer.rules_layers import KERNEL
from razordeploy.subnet.tracer.trace import Trace
from razordeploy.subnet.tracer.unit import Member, PrunableUnit, Span

_PLAIN = {"weight", "bias", "running_mean", "running_var", "in_proj_weight", "in_proj_bias"}


@dataclass
class _Draft:
    """A unit in the making."""

    strands: list[Axis] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    unit: PrunableUnit | None = None


def build_units(trace: Trace) -> dict[str, tuple[PrunableUnit, tuple[Axis, ...]]]:
    """Units by name, in the order of execution, each with the leaf of every strand."""
    statistical = set(_leaves(trace.statistical))
    heads, groups = set(_leaves(trace.heads)), set(_leaves(trace.groups))
    named: dict[str, _Draft] = {}
    for draft in _drafts(trace):
        outputs = [m for m in draft.members if m.is_output]
        reason = next((mate.reason for strand in draft.strands for mate in strand.mates if mate.reason), None)
        wide = any(span.positions_per_element > 1 for m in outputs for span in m.spans)
        kind = "channels"
        if wide and heads.intersection(draft.strands):
            kind = "heads"
        elif wide and groups.intersection(draft.strands):
            kind = "groups"
        if not outputs or (reason and wide and kind == "channels"):
            continue  # consumed only, or a count of rows, windows or projections: nothing a user would prune
        draft.unit = PrunableUnit(
            name=_unused(_name(draft), named),
            channels=draft.strands[0].size,
            members=tuple(draft.members),
            strands=len(draft.strands),
            kind=kind,
            reason=reason,
            statistical=bool(statistical.intersection(draft.strands)),
        )
        named[draft.unit.name] = draft
    units = _mark_factors(trace, list(named.values()))
    return {unit.name: (unit, tuple(draft.strands)) for unit, draft in zip(units, named.values(), strict=True)}


def _leaves(axes: Iterable[Axis]) -> Iterator[Axis]:
    for axis in axes:
        yield from leaves(axis)


def _unused(name: str, taken: Iterable[str]) -> str:
    taken, number, free = set(taken), 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _places(trace: Trace) -> Iterator[tuple[str, int, int | None, Axis, int]]:
    """``(tensor, dim, group, axis, size)`` of every dimension of every parameter, in the order of execution."""
    order: dict[str, int] = {}
    for position, node in enumerate(trace.graph_module.graph.nodes):
        for arg in node.all_input_nodes:
            if arg.op == "get_attr":
                order.setdefault(str(arg.target), position)
    for name in sorted(trace.state, key=lambda n: order.get(n, len(order))):
        grouped = trace.grouped.get(name)
        for dim, axis in enumerate(trace.state[name]):
            if grouped is not None and dim == 1:
                for group, own in enumerate(grouped.own):
                    yield name, dim, group, own, find(own).size
            else:
                yield name, dim, None, axis, find(axis).size


def _drafts(trace: Trace) -> list[_Draft]:
    """Gather the places of every leaf, and the leaves that keep equally many elements."""
    drafts: dict[int, _Draft] = {}
    for tensor, dim, group, axis, size in _places(trace):
        found: dict[Axis, list[Span]] = {}
        for leaf, span in spans(axis):
            if leaf.size > 1 and leaf.reason != KERNEL:
                found.setdefault(leaf, []).append(span)
        for leaf, places in found.items():
            draft = drafts.setdefault(id(leaf.mates), _Draft())
            if leaf not in draft.strands:
                draft.strands.append(leaf)
            draft.members.append(
                Member(
                    tensor=tensor,
                    dim=dim,
                    size=size,
                    is_output=(tensor, dim) not in trace.consumed or (tensor, dim) in trace.looked_up,
                    is_weight=tensor in trace.weights,
                    strand=draft.strands.index(leaf),
                    group=group,
                    groups=1 if group is None else len(trace.grouped[tensor].own),
                    spans=tuple(places),
                )
            )
    return list(drafts.values())


def _name(draft: _Draft) -> str:
    """``path_(start, end)_channels``: the first producer, and what all strands span of it."""
    outputs = [m for m in draft.members if m.is_output]
    first = next((m for m in outputs if m.is_weight), outputs[0])
    same = [m for m in outputs if (m.tensor, m.dim) == (first.tensor, first.dim)]
    shift = {m.strand: (m.group or 0) * m.size for m in same}
    start = min(shift[m.strand] + span.offset for m in same for span in m.spans)
    end = max(shift[m.strand] + span.end for m in same for span in m.spans)
    plain = first.tensor.rpartition(".")[2] in _PLAIN
    path = first.module if plain and first.module else first.tensor
    return f"{path}_({start}, {end})_{draft.strands[0].size}"


def _mark_factors(trace: Trace, drafts: list[_Draft]) -> list[PrunableUnit]:
    """Of the factors of one product only one is primary: heads before anything, else the one that counts most."""
    owner = {leaf: number for number, draft in enumerate(drafts) for leaf in draft.strands}
    rivals: dict[int, set[int]] = {}
    for product in _products(trace):
        sides = [{owner[leaf] for leaf in leaves(p) if leaf in owner and not leaf.reason} for p in product.parts]
        for at, side in enumerate(sides):
            others = set().union(*sides[:at], *sides[at + 1 :])
            for number in side:
                rivals.setdefault(number, set()).update(others - {number})
    units = [draft.unit for draft in drafts if draft.unit is not None]
    rank = {"heads": 0, "channels": 1, "groups": 1}
    order = sorted(range(len(units)), key=lambda n: (rank[units[n].kind], -units[n].channels, n))
    primary: set[int] = set()
    for number in order:
        if units[number].prunable and not rivals.get(number, set()) & primary:
            primary.add(number)
    return [
        replace(
            unit,
            primary=number in primary,
            cofactors=tuple(units[other].name for other in sorted(rivals.get(number, ()))),
        )
        for number, unit in enumerate(units)
    ]


def _products(trace: Trace) -> Iterator[Axis]:
    """Every product of axes in the graph, once."""
    seen: set[int] = set()
    stack = list(trace.all_axes())
    while stack:
        axis = find(stack.pop())
        if axis.kind != LEAF and id(axis) not in seen:
            seen.add(id(axis))
            stack.extend(axis.parts)
            if axis.kind == PROD:
                yield axis
