"""Layers and products: where channels are made and used up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from razordeploy.subnet.tracer.axes import (
    PROD,
    Axis,
    cat,
    factor,
    find,
    freeze,
    is_frozen,
    leaf,
    prod,
    same_count,
    split,
    unify,
)
from razordeploy.subnet.tracer.rules_pointwise import broadcast

if TYPE_CHECKING:
    from razordeploy.subnet.tracer.trace import Dims, Rule, Tracer

_aten = torch.ops.aten
KERNEL = "it is a kernel"
"""Reason of the spatial dimensions of a weight, which are no channels."""


def linear(t: Tracer, node: fx.Node) -> Dims:
    """``x (..., I)``, weight ``(O, I)``, bias ``(O,)``."""
    x, weight = t.axes(node.args[0]), t.axes(node.args[1])
    t.weight(node.args[1], consumes=[1])
    unify(x[-1], weight[1])
    for bias in t.axes(t.argument(node, "bias")):
        unify(find(weight[0]), bias)
    return [find(axis) for axis in [*x[:-1], weight[0]]]


def convolution(t: Tracer, node: fx.Node) -> Dims:
    """Weight ``(O, I / groups, ...)``; transposed: ``(I, O / groups, ...)``."""
    transposed = "transpose" in str(node.target) or (
        node.target is _aten.convolution.default and bool(t.argument(node, "transposed"))
    )
    groups = int(t.argument(node, "groups"))
    x, weight = t.axes(node.args[0]), t.axes(node.args[1])
    channel = len(x) - len(weight) + 1  # an input without batch has its channels first
    t.weight(node.args[1], consumes=[0 if transposed else 1])
    if groups == 1:
        unify(x[channel], weight[0 if transposed else 1])
        out = find(weight[1 if transposed else 0])
    else:
        out = _grouped(t, node, x[channel], groups, transposed=transposed)
    for bias in t.axes(t.argument(node, "bias")):
        unify(out, bias)
    spatial = _spatial(t, node, x[channel + 1 :], weight[2:], transposed=transposed)
    return [*map(find, x[:channel]), find(out), *spatial]


def _spatial(t: Tracer, node: fx.Node, axes: Dims, kernel: Dims, *, transposed: bool) -> Dims:
    """A kernel of one position, not strided or padded, treats positions alike; any other fixes them."""
    names = ("stride", "padding", "dilation", "output_padding")
    stride, padding, _, extra = (_per_dim(t, node, name, len(axes)) for name in names)
    sizes = t.shape(node)[-len(axes) :]
    result = []
    for axis, window, step, side, more, size in zip(axes, kernel, stride, padding, extra, sizes, strict=True):
        freeze(window, KERNEL)
        if window.size == 1 and step == 1 and side == 0 and more == 0:
            result.append(find(axis))
        else:
            t.freeze([axis], node, "it is spatial")
            result.append(leaf(size, "it is spatial"))
    return result


def _per_dim(t: Tracer, node: fx.Node, name: str, rank: int) -> Sequence[Any]:
    arguments = {argument.name for argument in node.target._schema.arguments}  # type: ignore[union-attr]
    value = t.argument(node, name) if name in arguments else 0
    if isinstance(value, str):
        return [value == "same"] * rank
    if isinstance(value, int):
        return [value] * rank
    return list(value) * rank if len(value) == 1 else list(value)


def _grouped(t: Tracer, node: fx.Node, x: Axis, groups: int, *, transposed: bool) -> Axis:
    """Join the input with a grouped weight; returns the output's axis.

    Many narrow groups (depthwise is the extreme) are pruned as a whole, a few wide ones inside: every group then keeps
    equally many channels, each its own. Groups that are fixed inside, positions of an image for instance, are pruned
    as a whole.
    """
    rows, own = t.axes(node.args[1])[:2]
    wide = groups <= max(rows.size // groups, own.size) and not _fixed_inside(x, groups)
    if wide and _only_grouped(node.args[1], groups):
        return _wide_groups(t, str(node.args[1].target), x, groups, transposed=transposed)  # type: ignore[union-attr]
    counted, _ = factor(rows, [groups, rows.size // groups])
    if transposed:
        unify(x, rows)
        out = prod([counted, own])
    else:
        counted_x, inside_x = factor(x, [groups, own.size])
        unify(counted_x, counted)
        unify(inside_x, own)
        out = find(rows)
    t.trace.groups.append(counted)
    t.note(node, counted)
    return out


def _fixed_inside(axis: Axis, groups: int) -> bool:
    """Tell whether ``axis`` is that many groups times factors that cannot shrink."""
    axis = find(axis)
    if axis.kind != PROD:
        return False
    count, parts = 1, [find(part) for part in axis.parts]
    while parts and count < groups:
        count *= parts.pop(0).size
    return count == groups and bool(parts) and all(is_frozen(part) for part in parts)


def _only_grouped(weight: object, groups: int) -> bool:
    """Tell whether a weight is a parameter that nothing but convolutions of that many groups reads."""
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return False
    return all(u.target in CONVOLUTIONS and u.args[1] is weight and groups in u.args for u in weight.users)


def _wide_groups(t: Tracer, weight: str, x: Axis, groups: int, *, transposed: bool) -> Axis:
    """Cut both sides into one run a group; the runs of a side keep equally many channels."""
    rows, own = t.trace.state[weight][:2]
    if transposed:
        unify(x, rows)
    runs = _runs(rows, groups)
    known = t.trace.grouped.get(weight)
    if transposed:
        own_runs = list(known.own) if known else [leaf(own.size) for _ in range(groups)]
    else:
        own_runs = _runs(x, groups)
        for one, other in zip(own_runs, known.own if known else (), strict=False):
            unify(one, other)
    for one in own_runs[1:]:
        same_count(own_runs[0], one)
    t.group(weight, rows=runs, own=own_runs)
    return cat(own_runs) if transposed else find(rows)


def _runs(axis: Axis, groups: int) -> list[Axis]:
    width = axis.size // groups
    runs = split(axis, range(width, axis.size, width))
    for run in runs[1:]:
        same_count(runs[0], run)
    return runs


def matmul(t: Tracer, node: fx.Node) -> Dims:
    """``(..., M, K) @ (..., K, N)``."""
    one, two = t.axes(node.args[0]), t.axes(node.args[1])
    return _product(t, node, node.args[0], node.args[1], one, two)


def add_matmul(t: Tracer, node: fx.Node) -> Dims:
    """``addmm`` and ``baddbmm``: a product with something added."""
    one, two = t.axes(node.args[1]), t.axes(node.args[2])
    result = _product(t, node, node.args[1], node.args[2], one, two)
    return broadcast([result, t.axes(node.args[0])], t.shape(node))


def _product(t: Tracer, node: fx.Node, left: object, right: object, one: Dims, two: Dims) -> Dims:
    t.weight(left, consumes=[len(one) - 1])
    t.weight(right, consumes=[max(len(two) - 2, 0)])
    unify(one[-1], two[-2] if len(two) > 1 else two[0])
    rows = one[-2:-1]
    columns = two[-1:] if len(two) > 1 else []
    sizes = t.shape(node)
    batch = broadcast([one[:-2], two[:-2]], sizes[: len(sizes) - len(rows) - len(columns)])
    if len(one) > 2 and len(two) > 2:
        t.trace.heads += batch
    return [find(axis) for axis in [*batch, *rows, *columns]]


def attention(t: Tracer, node: fx.Node) -> Dims:
    """``softmax(q k^T / sqrt(E) + mask) v`` for q ``(..., L, E)``, k ``(..., S, E)``, v ``(..., S, Ev)``."""
    query, key, value = (t.axes(node.args[i]) for i in range(3))
    if t.argument(node, "enable_gqa"):
        t.freeze([query[-3], key[-3], value[-3]], node, "query heads share key heads")
    sizes = t.shape(node)
    heads = broadcast([query[:-2], key[:-2], value[:-2]], sizes[:-2])
    unify(query[-1], key[-1])
    unify(key[-2], value[-2])
    t.trace.statistical.append(key[-2])
    if t.argument(node, "is_causal"):
        t.freeze([query[-2], key[-2]], node, "the order of its elements counts")
    mask = t.axes(t.argument(node, "attn_mask"))
    if mask:
        scores = [*heads, query[-2], key[-2]]
        broadcast([scores, mask], tuple(axis.size for axis in scores))
    t.trace.heads += heads
    t.note(node, query[-1])
    return [find(axis) for axis in [*heads, query[-2], value[-1]]]


def einsum(t: Tracer, node: fx.Node) -> Dims:
    """Letters name axes; an ellipsis is broadcast."""
    equation, operands = str(node.args[0]).replace(" ", ""), list(node.args[1])  # type: ignore[arg-type]
    inputs, _, output = equation.partition("->")
    terms = inputs.split(",")
    if "->" not in equation or any(len(set(term.replace(".", ""))) < len(term.replace(".", "")) for term in terms):
        t.freeze([axis for arg in operands for axis in t.axes(arg)], node, "an einsum names it twice")
        return t.fixed(node, "an einsum names it twice")
    letters: dict[str, Axis] = {}
    seen: dict[str, int] = {}
    spread: list[Dims] = []
    for term, arg in zip(terms, operands, strict=True):
        axes = t.axes(arg)
        before, dots, after = term.partition("...")
        if dots:
            spread.append(axes[len(before) : len(axes) - len(after)])
        named = [*zip(before, axes, strict=False), *zip(after[::-1], axes[::-1], strict=False)]
        for letter, axis in named:
            if letter in letters and axis.size > 1 and letters[letter].size > 1:
                unify(letters[letter], axis)
            elif letter not in letters or letters[letter].size == 1:
                letters[letter] = axis
            seen[letter] = seen.get(letter, 0) + 1
        t.weight(arg, consumes=[at for at, letter in enumerate(term) if letter not in output and not dots])
    t.trace.heads += [letters[k] for k in output.replace(".", "") if seen[k] > 1]
    before, dots, after = output.partition("...")
    rank = len(t.shape(node)) - len(before) - len(after)
    middle = broadcast(spread, t.shape(node)[len(before) : len(before) + rank]) if dots else []
    return [find(axis) for axis in [*(letters[k] for k in before), *middle, *(letters[k] for k in after)]]


def distance(t: Tracer, node: fx.Node) -> Dims:
    """``cdist``: ``(..., P, M)`` and ``(..., R, M)`` to ``(..., P, R)``."""
    one, two = t.axes(node.args[0]), t.axes(node.args[1])
    unify(one[-1], two[-1])
    batch = broadcast([one[:-2], two[:-2]], t.shape(node)[:-2])
    return [*batch, find(one[-2]), find(two[-2])]


CONVOLUTIONS = (
    *(_aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default, _aten.convolution.default),
    *(_aten.conv1d.padding, _aten.conv2d.padding, _aten.conv3d.padding),
    *(_aten.conv_transpose1d.default, _aten.conv_transpose2d.input, _aten.conv_transpose3d.input),
)
"""Operators whose second argument is a convolution's weight."""

RULES: dict[object, Rule] = {
    **dict.fromkeys(CONVOLUTIONS, convolution),
    _aten.linear.default: linear,
    _aten.matmul.default: matmul,
    _aten.mm.default: matmul,
    _aten.bmm.default: matmul,
    _aten.addmm.default: add_matmul,
    _aten.baddbmm.default: add_matmul,
    _aten.einsum.default: einsum,
    _aten.scaled_dot_product_attention.default: attention,
    _aten.cdist.default: distance,
    _aten._cdist_forward.default: distance,
}
