"""Operators that treat every element alike: tensors of broadcast shapes share their axes."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from razordeploy.capture.graph import flat_nodes
from razordeploy.subnet.tracer.axes import Axis, find, leaf, unify

if TYPE_CHECKING:
    from razordeploy.subnet.tracer.trace import Dims, Rule, Tracer

_aten = torch.ops.aten


def broadcast(operands: list[Dims], sizes: tuple[int, ...]) -> Dims:
    """Merge the axes of tensors that are broadcast to ``sizes``; a size of one takes no part."""
    result: list[Axis | None] = [None] * len(sizes)
    for axes in operands:
        shift = len(sizes) - len(axes)
        for position, axis in enumerate(axes):
            at = position + shift
            if axis.size != sizes[at] or axis.size == 1:
                continue
            if result[at] is None:
                result[at] = axis
            else:
                unify(result[at], axis)  # type: ignore[arg-type]
    return [leaf(n) if axis is None else find(axis) for axis, n in zip(result, sizes, strict=True)]


def pointwise(t: Tracer, node: fx.Node) -> Dims:
    """Add, multiply, activations, comparisons, ``where``: all tensors, broadcast."""
    return broadcast([t.axes(arg) for arg in flat_nodes((node.args, node.kwargs))], t.shape(node))


def same(t: Tracer, node: fx.Node) -> Dims:
    """Copies, casts, dropout, ``zeros_like``: the axes of the first argument."""
    return t.axes(node.args[0])


def same_with_mask(t: Tracer, node: fx.Node) -> tuple[Dims, ...]:
    """``native_dropout``: the result and its mask."""
    return t.axes(node.args[0]), t.axes(node.args[0])


def prelu(t: Tracer, node: fx.Node) -> Dims:
    """One slope for all channels, or one a channel of dimension 1."""
    axes, weight = t.axes(node.args[0]), t.axes(node.args[1])
    if len(axes) > 1 and weight and weight[0].size > 1:
        unify(axes[1], weight[0])
    return axes


def created(t: Tracer, node: fx.Node) -> Dims:
    """``zeros`` and ``full``: every element is the same, so any width will do."""
    return [leaf(size) for size in t.shape(node)]


def constant(t: Tracer, node: fx.Node) -> Any:
    """``arange`` and other tables: fixed."""
    return t.fixed(node, f"it is combined with a table that the code makes ({t.where(node)})")


def item(t: Tracer, node: fx.Node) -> Dims:
    """One tensor out of several."""
    source = node.args[0]
    dims = t.trace.dims.get(source) if isinstance(source, fx.Node) else None
    return (
        [find(axis) for axis in dims[t.number(node, 1)]] if isinstance(dims, tuple) else t.fixed(node, "it is an item")
    )


_ALSO_POINTWISE = (
    *(_aten.masked_fill.Tensor, _aten.hardswish.default, _aten.floor_divide.default, _aten.floor_divide.Scalar),
    *(_aten.subtract.Tensor, _aten.multiply.Tensor, _aten.multiply.Scalar, _aten.subtract.Scalar, _aten.divide.Tensor),
    *(_aten.relu6.default, _aten.copy.default, _aten.__and__.Tensor, _aten.__or__.Tensor, _aten.log_sigmoid.default),
    *(_aten.fake_quantize_per_tensor_affine.default, _aten.square.default),
)
_SAME = (
    *(_aten.clone.default, _aten.contiguous.default, _aten.alias.default, _aten.detach.default),
    *(_aten.dropout.default, _aten.feature_dropout.default, _aten.alpha_dropout.default),
    *(_aten.to.dtype, _aten.to.device, _aten.to.dtype_layout, _aten.to.other, _aten._to_copy.default),
    *(_aten.type_as.default, _aten.lift_fresh_copy.default, _aten.lift_fresh.default),
    *(_aten.zeros_like.default, _aten.ones_like.default, _aten.full_like.default, _aten.empty_like.default),
    *(_aten.rand_like.default, _aten.bernoulli.default, _aten.bernoulli.p),
)
_CREATED = (
    *(_aten.zeros.default, _aten.ones.default, _aten.full.default, _aten.empty.memory_format),
    *(_aten.new_zeros.default, _aten.new_ones.default, _aten.new_full.default, _aten.new_empty.default),
)
_CONSTANT = (
    *(_aten.arange.default, _aten.arange.start, _aten.arange.start_step, _aten.linspace.default, _aten.eye.default),
    *(_aten.scalar_tensor.default, _aten.eye.m, _aten.randn.default, _aten.rand.default),
)

RULES: dict[object, Rule] = {
    **dict.fromkeys(_ALSO_POINTWISE, pointwise),
    **dict.fromkeys(_SAME, same),
    **dict.fromkeys(_CREATED, created),
    **dict.fromkeys(_CONSTANT, constant),
    _aten.native_dropout.default: same_with_mask,
    _aten.prelu.default: prelu,
    _aten._prelu_kernel.default: pointwise,
    operator.getitem: item,
}
