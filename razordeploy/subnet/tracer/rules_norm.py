"""Norms, softmax, reductions, pooling and resampling."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import fx

from razordeploy.subnet.tracer.axes import Axis, factor, find, leaf, same_count, split, unify

if TYPE_CHECKING:
    from razordeploy.subnet.tracer.trace import Dims, Rule, Tracer

_aten = torch.ops.aten


def batch_norm(t: Tracer, node: fx.Node) -> Dims:
    """Scale, shift and statistics belong to the channels of dimension 1."""
    axes = t.axes(node.args[0])
    for state in node.args[1:5]:
        for axis in t.axes(state):
            unify(axes[1], axis)
    return [find(axis) for axis in axes]


def native_batch_norm(t: Tracer, node: fx.Node) -> tuple[Dims, ...]:
    """The decomposed form, with the saved statistics behind the result."""
    axes = batch_norm(t, node)
    return (axes, *([axes[1]] if len(shape) == 1 else [leaf(n) for n in shape] for shape in t.shapes(node)[1:]))


def layer_norm(t: Tracer, node: fx.Node) -> Dims:
    """Mean and variance (``rms_norm``: mean square) over the last dimensions."""
    axes = t.axes(node.args[0])
    last = axes[len(axes) - len(node.args[1]) :]  # type: ignore[arg-type]
    for state in node.args[2:4]:
        for axis, own in zip(t.axes(state), last, strict=False):
            unify(own, axis)
    t.trace.statistical += last
    t.note(node, *last)
    return [find(axis) for axis in axes]


def native_layer_norm(t: Tracer, node: fx.Node) -> tuple[Dims, ...]:
    """The decomposed form, with mean and deviation behind the result."""
    axes = layer_norm(t, node)
    kept = len(axes) - len(node.args[1])  # type: ignore[arg-type]
    saved = [*axes[:kept], *(leaf(1) for _ in axes[kept:])]
    return axes, saved, list(saved)


def group_norm(t: Tracer, node: fx.Node) -> Dims:
    """Mean and variance over each group of channels and all positions."""
    axes = t.axes(node.args[0])
    groups = t.number(node, 1)
    for state in node.args[2:4]:
        for axis in t.axes(state):
            unify(axes[1], axis)
    t.note(node, grouped_statistics(t, find(axes[1]), groups))
    return [find(axis) for axis in axes]


def grouped_statistics(t: Tracer, axis: Axis, groups: int) -> Axis:
    """Split ``axis`` into groups with statistics of their own; returns the axis that counts them."""
    width = axis.size // groups
    if groups > width:
        counted, inside = factor(axis, [groups, width])
        t.trace.groups.append(counted)
        t.trace.statistical.append(inside)
        return counted
    rows = split(axis, range(width, axis.size, width))
    for row in rows[1:]:
        same_count(rows[0], row)
    t.trace.statistical += rows
    return leaf(groups, "it counts groups")


def softmax(t: Tracer, node: fx.Node) -> Dims:
    """Softmax over one dimension."""
    axes = t.axes(node.args[0])
    if axes:
        t.trace.statistical.append(axes[t.number(node, 1)])
    return axes


def glu(t: Tracer, node: fx.Node) -> Dims:
    """``a * sigmoid(b)`` for the halves ``a`` and ``b``."""
    axes = t.axes(node.args[0])
    dim = int(t.argument(node, "dim")) % len(axes)
    half, gate = split(axes[dim], [axes[dim].size // 2])
    unify(half, gate)
    axes[dim] = find(half)
    return axes


def _reduced(t: Tracer, node: fx.Node, axes: Dims) -> list[int]:
    names = {argument.name for argument in node.target._schema.arguments}  # type: ignore[union-attr]
    dim = t.argument(node, "dim") if "dim" in names else None
    dims: Iterable[int] = [dim] if isinstance(dim, int) else (dim or range(len(axes)))
    return [d % len(axes) for d in dims]


def _without(t: Tracer, node: fx.Node, axes: Dims, dims: list[int], shape: tuple[int, ...]) -> Dims:
    if len(shape) == len(axes):
        return [leaf(1) if at in dims else axis for at, axis in enumerate(axes)]
    return [axis for at, axis in enumerate(axes) if at not in dims]


def statistic(t: Tracer, node: fx.Node) -> Dims:
    """``mean``, ``sum``, ``amax``, ``norm``: the order does not matter; the number does, or what a zero has become."""
    axes = t.axes(node.args[0])
    if not axes:
        return []
    dims = _reduced(t, node, axes)
    t.trace.statistical += [axes[d] for d in dims]
    return _without(t, node, axes, dims, t.shape(node))


def statistics(t: Tracer, node: fx.Node) -> tuple[Dims, ...]:
    """``var_mean``: two of them."""
    axes = t.axes(node.args[0])
    dims = _reduced(t, node, axes)
    t.trace.statistical += [axes[d] for d in dims]
    return tuple(_without(t, node, axes, dims, shape) for shape in t.shapes(node))


def extreme(t: Tracer, node: fx.Node) -> tuple[Dims, ...]:
    """``max`` along a dimension, with the positions found."""
    axes = t.axes(node.args[0])
    dims = _reduced(t, node, axes)
    if any(user.args[1] == 1 and user.users for user in node.users):
        t.freeze([axes[d] for d in dims], node, "positions along it are returned")
    t.trace.statistical += [axes[d] for d in dims]
    return tuple(_without(t, node, axes, dims, shape) for shape in t.shapes(node))


def position(t: Tracer, node: fx.Node) -> Dims:
    """``argmax``: positions along a dimension."""
    axes = t.axes(node.args[0])
    dims = _reduced(t, node, axes)
    t.freeze([axes[d] for d in dims], node, "positions along it are returned")
    return _without(t, node, axes, dims, t.shape(node))


def ordered(t: Tracer, node: fx.Node) -> Dims:
    """``cumsum``: the order of elements counts."""
    axes = t.axes(node.args[0])
    dim = int(t.argument(node, "dim")) % len(axes)
    t.freeze([axes[dim]], node, "the order of its elements counts")
    return axes


def picked(t: Tracer, node: fx.Node) -> tuple[Dims, ...]:
    """``topk`` and ``sort``: values and positions along a dimension."""
    axes = t.axes(node.args[0])
    dim = int(t.argument(node, "dim")) % len(axes)
    t.freeze([axes[dim]], node, "positions along it are returned")
    return tuple([*axes[:dim], leaf(shape[dim], "it is sorted"), *axes[dim + 1 :]] for shape in t.shapes(node))


def spatial(rank: int) -> Callable[[Tracer, fx.Node], Dims]:
    """Pooling or resampling of the last ``rank`` dimensions."""

    def rule(t: Tracer, node: fx.Node) -> Dims:
        axes = t.axes(node.args[0])
        t.freeze(axes[-rank:], node, "it is spatial")
        return [*axes[:-rank], *(leaf(n, "it is spatial") for n in t.shape(node)[-rank:])]

    return rule


def spatial_with_positions(t: Tracer, node: fx.Node) -> tuple[Dims, ...]:
    """Max pooling that returns positions too."""
    axes = t.axes(node.args[0])
    shape = t.shapes(node)[0]
    moved = [at for at, (axis, n) in enumerate(zip(axes, shape, strict=True)) if at >= 2 or axis.size != n]
    t.freeze([axes[at] for at in moved], node, "it is spatial")
    result = [leaf(n, "it is spatial") if at in moved else axes[at] for at, n in enumerate(shape)]
    return result, list(result)


_SOFTMAX = (_aten.softmax.int, _aten.log_softmax.int, _aten._softmax.default, _aten._log_softmax.default)
_STATISTICS = (
    *(_aten.mean.default, _aten.mean.dim, _aten.amax.default, _aten.amin.default, _aten.logsumexp.default),
    *(_aten.var.default, _aten.var.dim, _aten.var.correction, _aten.std.default, _aten.std.dim, _aten.std.correction),
    *(_aten.sum.default, _aten.sum.dim_IntList, _aten.linalg_vector_norm.default, _aten.any.dim, _aten.any.default),
    *(_aten.norm.Scalar, _aten.norm.ScalarOpt_dim),
    *(_aten.prod.default, _aten.prod.dim_int, _aten.all.default, _aten.all.dim, _aten.max.default, _aten.min.default),
)
_POOLS = {
    1: (_aten.avg_pool1d.default, _aten.max_pool1d.default, _aten.adaptive_avg_pool1d.default),
    2: (
        *(_aten.avg_pool2d.default, _aten.max_pool2d.default, _aten.adaptive_avg_pool2d.default),
        *(_aten.upsample_nearest2d.vec, _aten.upsample_nearest2d.default, _aten._adaptive_avg_pool2d.default),
        *(_aten.upsample_bilinear2d.vec, _aten.upsample_bilinear2d.default),
        *(_aten.upsample_bicubic2d.vec, _aten.upsample_bicubic2d.default),
        *(_aten._upsample_bilinear2d_aa.vec, _aten._upsample_bicubic2d_aa.vec, _aten.reflection_pad2d.default),
        _aten.replication_pad2d.default,
    ),
    3: (_aten.avg_pool3d.default, _aten.max_pool3d.default, _aten.adaptive_avg_pool3d.default),
}

RULES: dict[object, Rule] = {
    **dict.fromkeys(_SOFTMAX, softmax),
    **dict.fromkeys(_STATISTICS, statistic),
    **{op: spatial(rank) for rank, ops in _POOLS.items() for op in ops},
    _aten.upsample_nearest1d.vec: spatial(1),
    _aten.upsample_linear1d.vec: spatial(1),
    _aten.upsample_nearest3d.vec: spatial(3),
    _aten.upsample_trilinear3d.vec: spatial(3),
    _aten.max_pool2d_with_indices.default: spatial_with_positions,
    _aten.adaptive_max_pool2d.default: spatial_with_positions,
    _aten.batch_norm.default: batch_norm,
    _aten.instance_norm.default: batch_norm,
    _aten._native_batch_norm_legit_no_training.default: native_batch_norm,
    _aten.layer_norm.default: layer_norm,
    _aten.rms_norm.default: layer_norm,
    _aten.native_layer_norm.default: native_layer_norm,
    _aten.group_norm.default: group_norm,
    _aten.glu.default: glu,
    _aten.var_mean.correction: statistics,
    _aten.var_mean.dim: statistics,
    _aten.std_mean.correction: statistics,
    _aten.max.dim: extreme,
    _aten.min.dim: extreme,
    _aten.argmax.default: position,
    _aten.argmin.default: position,
    _aten.cumsum.default: ordered,
    _aten.cumprod.default: ordered,
    _aten.argsort.default: ordered,
    _aten.topk.default: picked,
    _aten.sort.default: picked,
}
