"""Operators that join, cut and pick along a dimension."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from razordeploy.subnet.tracer.axes import Axis, cat, find, is_frozen, leaf, split, unify
from razordeploy.subnet.tracer.rules_pointwise import broadcast

if TYPE_CHECKING:
    from razordeploy.subnet.tracer.trace import Dims, Rule, Tracer

_aten = torch.ops.aten


def concatenate(t: Tracer, node: fx.Node) -> Dims:
    """``cat``: parts in a row along one dimension, the others shared."""
    operands = [t.axes(arg) for arg in node.args[0]]  # type: ignore[union-attr]
    operands = [axes for axes in operands if len(axes) > 1 or axes[0].size]
    rank = len(operands[0])
    dim = (int(t.argument(node, "dim")) + rank) % rank
    for axes in operands[1:]:
        for at in range(rank):
            if at != dim:
                unify(operands[0][at], axes[at])
    result = [find(axis) for axis in operands[0]]
    result[dim] = cat([axes[dim] for axes in operands])
    return result


def stack(t: Tracer, node: fx.Node) -> Dims:
    """``stack``: a new dimension that counts the tensors."""
    operands = [t.axes(arg) for arg in node.args[0]]  # type: ignore[union-attr]
    for axes in operands[1:]:
        for one, other in zip(operands[0], axes, strict=True):
            unify(one, other)
    result = [find(axis) for axis in operands[0]]
    dim = int(t.argument(node, "dim")) % (len(result) + 1)
    return [*result[:dim], leaf(len(operands), "it counts stacked tensors"), *result[dim:]]


def cut(t: Tracer, node: fx.Node) -> tuple[Dims, ...]:
    """``split``, ``chunk``, ``split_with_sizes``, ``tensor_split``: each piece has channels of its own."""
    axes = t.axes(node.args[0])
    dim = int(t.argument(node, "dim")) % len(axes)
    sizes = [shape[dim] for shape in t.shapes(node)]
    pieces = split(axes[dim], list(accumulate(sizes))[:-1])
    t.note(node, *pieces)
    return tuple([*axes[:dim], piece, *axes[dim + 1 :]] for piece in pieces)


def unbind(t: Tracer, node: fx.Node) -> tuple[Dims, ...]:
    """``unbind``: the dimension goes, its positions are named."""
    axes = t.axes(node.args[0])
    dim = int(t.argument(node, "dim")) % len(axes)
    t.freeze([axes[dim]], node, "its elements are named by position")
    return tuple([*axes[:dim], *axes[dim + 1 :]] for _ in t.shapes(node))


def select(t: Tracer, node: fx.Node) -> Dims:
    """``x[:, i]``: one position is named."""
    axes = t.axes(node.args[0])
    dim = t.number(node, 1) % len(axes)
    t.freeze([axes[dim]], node, "one of its elements is named by position")
    return [*axes[:dim], *axes[dim + 1 :]]


def narrow(t: Tracer, node: fx.Node) -> Dims:
    """``x[:, a:b]``: three pieces, of which one is kept."""
    axes = t.axes(node.args[0])
    dim, start, stop = bounds(t, node)
    size = t.shape(node)[dim]
    if size == axes[dim].size:
        return axes
    if is_frozen(axes[dim]) or size != stop - start:
        t.freeze([axes[dim]], node, "some of its elements are named by position")
        return [*axes[:dim], leaf(size, "it is a slice of positions"), *axes[dim + 1 :]]
    cuts = [c for c in (start, stop) if 0 < c < axes[dim].size]
    pieces = split(axes[dim], cuts)
    before, kept = (pieces[0], pieces[1]) if start else (leaf(0), pieces[0])
    t.note(node, before, kept)
    return [*axes[:dim], kept, *axes[dim + 1 :]]


def bounds(t: Tracer, node: fx.Node) -> tuple[int, int, int]:
    """``(dim, start, stop)`` of a slice, resolved against the size of its input; a step shows in the result's size."""
    shape = t.shape(node.args[0])  # type: ignore[arg-type]
    dim = int(t.argument(node, "dim")) % len(shape)
    size = shape[dim]
    start = t.argument(node, "start")
    start = _resolve(0 if start is None else start, size)
    if node.target is _aten.narrow.default:
        return dim, start, start + t.shape(node)[dim]
    end = t.argument(node, "end")
    return dim, start, max(start, _resolve(size if end is None else end, size))


def _resolve(position: Any, size: int) -> int:
    if not isinstance(position, int):  # a symbolic position: of a batch or of pixels, never of channels
        value = position.meta["val"] if isinstance(position, fx.Node) else position
        position = value if isinstance(value, int) else int(value.node.hint)
    return min(max(position + size if position < 0 else position, 0), size)


def pad(t: Tracer, node: fx.Node) -> Dims:
    """``constant_pad_nd``: padded channels are channels that hold a constant."""
    axes = t.axes(node.args[0])
    amounts = list(node.args[1])  # type: ignore[arg-type]
    mode = t.argument(node, "mode") if node.target is _aten.pad.default else "constant"
    result = list(axes)
    padded: list[Axis] = []
    for back in range(len(amounts) // 2):
        at = len(axes) - 1 - back
        before, after = (_amount(a) for a in amounts[2 * back : 2 * back + 2])
        if is_frozen(axes[at]) or mode != "constant" or before < 0 or after < 0:
            if before or after:
                t.freeze([axes[at]], node, "it is padded")
                result[at] = leaf(t.shape(node)[at], "it is padded")
            padded += [leaf(max(before, 0), "padding"), leaf(max(after, 0), "padding")]
            continue
        ends = [leaf(before), leaf(after)]
        padded += ends
        result[at] = cat([ends[0], axes[at], ends[1]])
    t.note(node, *padded)
    return result


def _amount(amount: Any) -> int:
    value = amount.meta["val"] if isinstance(amount, fx.Node) else amount
    return value if isinstance(value, int) else int(value.node.hint)


def index(t: Tracer, node: fx.Node) -> Dims:
    """``x[i, :, j]``: the indexed dimensions are tables, the others pass."""
    axes, indices = t.axes(node.args[0]), list(node.args[1])  # type: ignore[arg-type]
    tables = [at for at, table in enumerate(indices) if table is not None]
    t.freeze([axes[at] for at in tables], node, "it is looked up by position")
    rank = len(t.shape(node)) - (len(axes) - len(tables))
    found = [t.axes(indices[at]) for at in tables]
    if any(table.meta["val"].dtype == torch.bool for table in (indices[at] for at in tables)):
        return t.fixed(node, f"it is picked by a mask ({t.where(node)})")
    together = tables == list(range(tables[0], tables[0] + len(tables)))
    first = tables[0] if together else 0
    rest = [axis for at, axis in enumerate(axes) if at not in tables]
    looked_up = broadcast(found, t.shape(node)[first : first + rank])
    return [*rest[:first], *looked_up, *rest[first:]]


def index_select(t: Tracer, node: fx.Node) -> Dims:
    """``index_select``: one dimension is a table."""
    axes = t.axes(node.args[0])
    dim = t.number(node, 1) % len(axes)
    t.freeze([axes[dim]], node, "it is looked up by position")
    axes[dim] = leaf(t.shape(node)[dim], "it is looked up by position")
    return axes


def gather(t: Tracer, node: fx.Node) -> Dims:
    """``gather``: one dimension is a table, the others go along with the index."""
    axes, table = t.axes(node.args[0]), t.axes(node.args[2])
    dim = t.number(node, 1) % len(axes)
    t.freeze([axes[dim]], node, "it is looked up by position")
    for at, (axis, other) in enumerate(zip(axes, table, strict=True)):
        if at == dim:
            continue
        if axis.size == other.size:
            unify(axis, other)
        else:
            t.freeze([axis], node, "some of it is looked up")
    return [find(axis) for axis in table]


def embedding(t: Tracer, node: fx.Node) -> Dims:
    """``embedding``: rows are looked up, columns are channels."""
    weight, table = t.axes(node.args[0]), t.axes(node.args[1])
    t.freeze([weight[0]], node, "it is looked up by position")
    t.weight(node.args[0], consumes=[])
    origin = t.origin(node.args[0], 1)
    if origin is not None:
        t.trace.looked_up.add(origin)
    return [*table, weight[1]]


def slice_scatter(t: Tracer, node: fx.Node) -> Dims:
    """Writing into a slice: the written dimension is fixed, the others are shared."""
    axes, source = t.axes(node.args[0]), t.axes(node.args[1])
    dim = int(t.argument(node, "dim")) % len(axes)
    if len(source) < len(axes):  # select_scatter
        source = [*source[:dim], leaf(1), *source[dim:]]
    for at, (axis, other) in enumerate(zip(axes, source, strict=True)):
        if at == dim:
            t.freeze([axis, other], node, "it is written by position")
        elif axis.size == other.size:
            unify(axis, other)
    return [find(axis) for axis in axes]


_CUTS = (
    *(_aten.split.Tensor, _aten.split.sizes, _aten.split_with_sizes.default, _aten.chunk.default),
    *(_aten.tensor_split.sections, _aten.tensor_split.indices),
)

RULES: dict[object, Rule] = {
    **dict.fromkeys(_CUTS, cut),
    _aten.cat.default: concatenate,
    _aten.concat.default: concatenate,
    _aten.stack.default: stack,
    _aten.unbind.int: unbind,
    _aten.select.int: select,
    _aten.slice.Tensor: narrow,
    _aten.narrow.default: narrow,
    _aten.pad.default: pad,
    _aten.constant_pad_nd.default: pad,
    _aten.index.Tensor: index,
    _aten.index_select.default: index_select,
    _aten.gather.default: gather,
    _aten.embedding.default: embedding,
    _aten.slice_scatter.default: slice_scatter,
    _aten.select_scatter.default: slice_scatter,
}
