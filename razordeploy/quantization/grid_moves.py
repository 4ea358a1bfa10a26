"""Operations that only pass on the grid of what they read: moves, and concatenations of values of one grid."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping

import torch
from torch import fx

from razordeploy.capture.graph import flat_nodes, is_float, shape_of
from razordeploy.config.backend_spec import BackendSpec
from razordeploy.quantization.op_kinds import kind_of


def source_of(node: fx.Node) -> fx.Node:
    """The tensor that a grid-passing operation reads; looks through tuple-valued splits."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    while not is_float(source) and source.args and isinstance(source.args[0], fx.Node):
        source = source.args[0]
    return source


def is_part(node: fx.Node) -> bool:
    """Tell whether ``node`` takes some of the values that it reads: a slice, or a split and what is indexed of it."""
    source = node.args[0]
    of_pool = node.target is operator.getitem and isinstance(source, fx.Node) and kind_of(source) == "max_pool"
    return kind_of(node) in ("slice", "split") and not of_pool


def _moved(node: fx.Node, axis: int) -> int | None:
    """Where a transposition or a reshape puts an axis; None: it is no axis of its own any more."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    before, after = shape_of(source) or (), shape_of(node) or ()
    if kind_of(node) == "reshape":
        same = len(after) > axis and all(str(a) == str(b) for a, b in zip(before[: axis + 1], after, strict=False))
        return axis if same else None
    order = list(range(len(before)))
    if node.target is torch.ops.aten.permute.default:
        order = [int(d) % len(before) for d in node.args[1]]  # type: ignore[union-attr, arg-type]
    elif node.target is torch.ops.aten.transpose.int:
        a, b = (int(d) % len(before) for d in node.args[1:3])  # type: ignore[arg-type]
        order[a], order[b] = order[b], order[a]
    elif len(before) > 1:
        order[-2:] = order[:-3:-1]
    return order.index(axis)


def is_constant(node: object) -> bool:
    """Tell whether ``node`` is a weight or a buffer."""
    return isinstance(node, fx.Node) and node.op == "get_attr"


class GridMoves:
    """Ways up and down a graph through the operations that a backend lets pass grids on."""

    def __init__(self, spec: BackendSpec, kinds: Mapping[fx.Node, str | None]) -> None:
        self.spec = spec
        self.kinds = kinds
        self.beginnings: set[fx.Node] = set()
        """Operations of these kinds that pass nothing on: a grid begins at what they write."""

    def keeps_grid(self, node: fx.Node) -> bool:
        """Tell whether ``node`` is of a kind that moves values."""
        return self.kinds.get(node) in self.spec.same_grid and bool(node.args) and isinstance(node.args[0], fx.Node)

    def passes(self, node: fx.Node) -> bool:
        """Tell whether ``node`` moves values, and passes their grid on."""
        return self.keeps_grid(node) and node not in self.beginnings

    def unifies(self, node: fx.Node) -> bool:
        """Tell whether ``node`` is of a kind that puts values of one grid together."""
        return self.kinds.get(node) in self.spec.unify

    def along_channels(self, concat: fx.Node) -> bool:
        """Tell whether layers read as channels what ``concat`` puts together, where the backend needs that."""
        rank, axis = len(shape_of(concat) or ()), concat.args[1] if len(concat.args) > 1 else 0
        return not self.spec.unify_channels or (isinstance(axis, int) and self._read_as_channels(concat, axis % rank))

    def _read_as_channels(self, value: fx.Node, axis: int) -> bool:
        """Follow ``axis`` to the layers that read it; one that a reshape took apart counts as channels."""
        for user in value.users:
            kind = self.kinds.get(user) or ""
            if "conv" in kind and axis != 1:
                return False
            if kind in ("linear", "matmul") and axis != len(shape_of(value) or ()) - 1:
                return False
            moved = _moved(user, axis) if kind in ("transpose", "reshape") else axis
            if moved is not None and self._looks_through(kind) and not self._read_as_channels(user, moved):
                return False
        return True

    def _looks_through(self, kind: str) -> bool:
        return kind in (*self.spec.same_grid, *self.spec.unify, *self.spec.fused_activations)

    def sources(self, value: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
        """Values that the grid of ``value`` comes from, one operation up, and the operation that reads each.

        Empty where the grid begins at ``value``.
        """
        if self.passes(value):
            source = source_of(value)
            if not is_float(source) or is_constant(source):
                return []
            below = value if value.args[0] is source else value.args[0]
            assert isinstance(below, fx.Node)
            return [(source, below)]
        if self.unifies(value) and self._may_unify(value):
            return [(part, value) for part in flat_nodes(value.args[0])]
        return []

    def starts(self, value: fx.Node) -> Iterator[fx.Node]:
        """Values where the grid of ``value`` begins."""
        sources = self.sources(value)
        for source, _ in sources:
            yield from self.starts(source)
        if not sources:
            yield value

    def roots(self, value: fx.Node) -> Iterator[fx.Node]:
        """Values that ``value`` is made of, whether or not they can be on one grid."""
        if self.passes(value):
            yield from self.roots(source_of(value))
        elif self.unifies(value):
            for part in flat_nodes(value.args[0]):
                yield from self.roots(part)
        else:
            yield value

    def readers(self, value: fx.Node) -> Iterator[fx.Node]:
        """Operations that read ``value`` directly or through moves."""
        for user in value.users:
            if self.passes(user):
                yield from self.readers(user)
            else:
                yield user

    def _may_unify(self, value: fx.Node) -> bool:
        """A value that several concatenations read (DenseNet) would chain all their grids into one."""
        parts = list(flat_nodes(value.args[0]))
        roots = [root for p in parts for root in self.roots(p)]
        if value in self.beginnings or (self.spec.grid_clips and len({self._clipping(r) for r in roots}) > 1):
            return False
        return all(is_float(p) and not is_constant(p) for p in parts) and all(
            sum(map(self.unifies, root.users)) <= 1 for root in roots
        )

    def _clipping(self, value: fx.Node) -> tuple[object, ...]:
        """The activation that writes ``value`` in a kernel's last step, with its bounds; empty for any other value."""
        kind = self.kinds.get(value)
        return (kind, *value.args[1:]) if kind in self.spec.fused_activations else ()
