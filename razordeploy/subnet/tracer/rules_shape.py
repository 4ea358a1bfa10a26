"""Operators that move channels about: reshapes, permutations, expansions and shuffles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import fx

from razordeploy.capture.graph import shape_of
from razordeploy.subnet.tracer.axes import Axis, factor, find, freeze, interleave, leaf, prod, split

if TYPE_CHECKING:
    from razordeploy.subnet.tracer.trace import Dims, Rule, Tracer

_aten = torch.ops.aten
_RESHAPES = {_aten.reshape.default, _aten.view.default, _aten._unsafe_view.default}
_COPIES = {_aten.contiguous.default, _aten.clone.default}
_IRREGULAR = "it is reshaped across its factors"


def regroup(axes: Sequence[Axis], sizes: Sequence[int]) -> Dims:
    """Axes of a reshape: factors are cut where the new shape cuts them, and multiplied where it merges them."""
    queue = [axis for axis in map(find, axes) if axis.size != 1]
    result: Dims = []
    for size in sizes:
        taken, need = [], size
        while need > 1 and queue:
            axis = find(queue.pop(0))
            if need % axis.size == 0:
                taken.append(axis)
                need //= axis.size
            elif axis.size % need == 0:
                outer, inner = factor(axis, [need, axis.size // need])
                taken.append(outer)
                queue.insert(0, inner)
                need = 1
            else:
                for lost in (axis, *taken, *queue):
                    freeze(lost, _IRREGULAR)
                return [*result, *(leaf(n, _IRREGULAR) for n in sizes[len(result) :])]
        result.append(prod(taken))
    return result


def reshape(t: Tracer, node: fx.Node) -> Dims:
    """``reshape``, ``flatten``, ``unflatten``, ``squeeze``, ``unsqueeze``: the order of elements stays."""
    shuffle = t.shuffles.get(node)
    axes = t.axes(node.args[0])
    if shuffle is None:
        return regroup(axes, t.shape(node))
    dim, groups, opens = shuffle
    if opens:
        rows = _rows(axes[dim], groups)
        return [*axes[:dim], leaf(groups, "it counts the rows of a shuffle"), rows[0], *axes[dim + 1 :]]
    source = t.axes(_shuffled(node))
    return [*axes[:dim], shuffled(source[dim], groups), *axes[dim + 2 :]]


def _rows(axis: Axis, groups: int) -> list[Axis]:
    length = axis.size // groups
    return split(axis, range(length, axis.size, length))


def shuffled(axis: Axis, groups: int) -> Axis:
    """Channel shuffle: ``(groups, n)`` becomes ``(n, groups)``; rows keep equally many channels, each its own."""
    axis = find(axis)
    if axis.kind == "prod" and find(axis.parts[0]).size == groups:
        return prod([*axis.parts[1:], axis.parts[0]])
    return interleave(_rows(axis, groups))


def find_shuffles(graph: fx.Graph) -> dict[fx.Node, tuple[int, int, bool]]:
    """Find ``reshape -> transpose -> reshape`` that swaps two factors of one dimension.

    Returns ``{reshape: (dimension, groups, opens)}`` for both reshapes of each shuffle.
    """
    found: dict[fx.Node, tuple[int, int, bool]] = {}
    for node in graph.nodes:
        if node.target not in _RESHAPES:
            continue
        swap = _through_copies(node.args[0])
        if not isinstance(swap, fx.Node) or swap.target not in {_aten.transpose.int, _aten.permute.default}:
            continue
        opening = _through_copies(swap.args[0])
        if not isinstance(opening, fx.Node) or opening.target not in _RESHAPES or len(opening.users) != 1:
            continue
        before, opened, after = shape_of(opening.args[0]), shape_of(opening), shape_of(node)  # type: ignore[arg-type]
        dim = _swapped_dim(swap, len(opened or ()))
        if before is None or opened is None or dim is None or before != after or len(opened) != len(before) + 1:
            continue
        if opened[dim] * opened[dim + 1] == before[dim] and opened[:dim] + opened[dim + 2 :] == (
            before[:dim] + before[dim + 1 :]
        ):
            found[opening] = (dim, int(opened[dim]), True)
            found[node] = (dim, int(opened[dim]), False)
    return found


def _through_copies(node: object) -> object:
    while isinstance(node, fx.Node) and node.target in _COPIES and len(node.users) == 1:
        node = node.args[0]
    return node


def _shuffled(closing: fx.Node) -> object:
    """What a shuffle shuffles: the argument of its opening reshape."""
    swap = _through_copies(closing.args[0])
    opening = _through_copies(swap.args[0])  # type: ignore[attr-defined]
    return opening.args[0]  # type: ignore[attr-defined]


def _swapped_dim(swap: fx.Node, rank: int) -> int | None:
    order = permutation(swap, rank)
    moved = [at for at, source in enumerate(order) if at != source]
    if len(moved) == 2 and moved[1] == moved[0] + 1 and moved[0] > 0:
        return moved[0]
    return None


def permutation(node: fx.Node, rank: int) -> list[int]:
    """Source dimension of each dimension of the result."""
    order = list(range(rank))
    if node.target is _aten.permute.default:
        return [d % rank for d in node.args[1]]  # type: ignore[union-attr,operator,misc]
    if node.target in {_aten.transpose.int, _aten.swapaxes.default, _aten.movedim.int}:
        one, two = (int(d) % rank for d in node.args[1:3])  # type: ignore[arg-type]
        if node.target is _aten.movedim.int:
            order.insert(two, order.pop(one))
        else:
            order[one], order[two] = order[two], order[one]
        return order
    if node.target in {_aten.mT.default, _aten.mH.default}:
        return [*order[:-2], order[-1], order[-2]]
    return order[::-1]  # t, numpy_T


def permute(t: Tracer, node: fx.Node) -> Dims:
    """``permute``, ``transpose``, ``movedim``, ``t``."""
    axes = t.axes(node.args[0])
    return [axes[source] for source in permutation(node, len(axes))] if axes else []


def expand(t: Tracer, node: fx.Node) -> Dims:
    """A size of one becomes any size; all its elements are the same."""
    axes, sizes = t.axes(node.args[0]), t.shape(node)
    like = t.axes(node.args[1]) if node.target is _aten.expand_as.default else []
    shift = len(sizes) - len(axes)
    result = []
    for at, size in enumerate(sizes):
        axis = axes[at - shift] if at >= shift else None
        if axis is not None and axis.size == size:
            result.append(axis)
        else:
            result.append(like[at] if like else leaf(size))
    return result


def repeat(t: Tracer, node: fx.Node) -> Dims:
    """``repeat`` and ``tile``: the whole dimension again and again."""
    axes, sizes = t.axes(node.args[0]), t.shape(node)
    axes = [*(leaf(1) for _ in range(len(sizes) - len(axes))), *axes]
    return [axis if axis.size == n else prod([leaf(n // axis.size), axis]) for axis, n in zip(axes, sizes, strict=True)]


def repeat_interleave(t: Tracer, node: fx.Node) -> Dims:
    """Every element again and again."""
    axes, sizes = t.axes(node.args[0]), t.shape(node)
    if len(axes) != len(sizes):
        return regroup([*axes, leaf(math.prod(sizes) // math.prod(a.size for a in axes))], sizes)
    return [axis if axis.size == n else prod([axis, leaf(n // axis.size)]) for axis, n in zip(axes, sizes, strict=True)]


def channel_shuffle(t: Tracer, node: fx.Node) -> Dims:
    """The operator of that name."""
    axes = t.axes(node.args[0])
    return [axes[0], shuffled(axes[1], t.number(node, 1)), *axes[2:]]


def pixel_shuffle(t: Tracer, node: fx.Node) -> Dims:
    """``(C r r, H, W)`` becomes ``(C, H r, W r)``: all sub-pixels of a channel go together."""
    axes, sizes = t.axes(node.args[0]), t.shape(node)
    channels, pixels = factor(axes[-3], [sizes[-3], axes[-3].size // sizes[-3]])
    t.freeze([pixels, *axes[-2:]], node, "they are sub-pixels")
    return [*axes[:-3], channels, *(leaf(n, "it is spatial") for n in sizes[-2:])]


def pixel_unshuffle(t: Tracer, node: fx.Node) -> Dims:
    """``(C, H r, W r)`` becomes ``(C r r, H, W)``."""
    axes, sizes = t.axes(node.args[0]), t.shape(node)
    t.freeze(axes[-2:], node, "it is spatial")
    pixels = leaf(sizes[-3] // axes[-3].size, "they are sub-pixels")
    return [*axes[:-3], prod([axes[-3], pixels]), *(leaf(n, "it is spatial") for n in sizes[-2:])]


def im2col(t: Tracer, node: fx.Node) -> Dims:
    """``F.unfold``: ``(N, C, H, W)`` becomes ``(N, C k k, L)``."""
    axes, sizes = t.axes(node.args[0]), t.shape(node)
    t.freeze(axes[-2:], node, "it is spatial")
    window = leaf(sizes[-2] // axes[-3].size, "it is a window")
    return [*axes[:-3], prod([axes[-3], window]), leaf(sizes[-1], "it is spatial")]


def col2im(t: Tracer, node: fx.Node) -> Dims:
    """``F.fold``: ``(N, C k k, L)`` becomes ``(N, C, H, W)``."""
    axes, sizes = t.axes(node.args[0]), t.shape(node)
    channels, window = factor(axes[-2], [sizes[-3], axes[-2].size // sizes[-3]])
    t.freeze([window, axes[-1]], node, "it is a window")
    return [*axes[:-2], channels, *(leaf(n, "it is spatial") for n in sizes[-2:])]


def sliding(t: Tracer, node: fx.Node) -> Dims:
    """``Tensor.unfold``: windows of one dimension become a new last one."""
    axes, sizes = t.axes(node.args[0]), t.shape(node)
    dim = t.number(node, 1) % len(axes)
    t.freeze([axes[dim]], node, "a window slides over it")
    axes[dim] = leaf(sizes[dim], "a window slides over it")
    return [*axes, leaf(sizes[-1], "it is a window")]


def reorder(t: Tracer, node: fx.Node) -> Dims:
    """``roll`` and ``flip``: an order of positions, which only spatial dimensions have."""
    axes = t.axes(node.args[0])
    dims = t.argument(node, "dims") or range(len(axes))
    t.freeze([axes[d % len(axes)] for d in dims], node, "its elements are reordered by position")
    return axes


_SAME_ORDER = (
    *(_aten.reshape.default, _aten.view.default, _aten._unsafe_view.default, _aten._reshape_copy.default),
    *(_aten.flatten.using_ints, _aten.unflatten.int, _aten.unsqueeze.default, _aten.view_as.default),
    *(_aten.squeeze.default, _aten.squeeze.dim, _aten.squeeze.dims, _aten.reshape_as.default),
)
_PERMUTES = (
    *(_aten.permute.default, _aten.transpose.int, _aten.swapaxes.default, _aten.movedim.int),
    *(_aten.t.default, _aten.numpy_T.default, _aten.mT.default, _aten.mH.default),
)

RULES: dict[object, Rule] = {
    **dict.fromkeys(_SAME_ORDER, reshape),
    **dict.fromkeys(_PERMUTES, permute),
    _aten.expand.default: expand,
    _aten.expand_as.default: expand,
    _aten.broadcast_to.default: expand,
    _aten.repeat.default: repeat,
    _aten.tile.default: repeat,
    _aten.repeat_interleave.self_int: repeat_interleave,
    _aten.channel_shuffle.default: channel_shuffle,
    _aten.pixel_shuffle.default: pixel_shuffle,
    _aten.pixel_unshuffle.default: pixel_unshuffle,
    _aten.im2col.default: im2col,
    _aten.col2im.default: col2im,
    _aten.unfold.default: sliding,
    _aten.roll.default: reorder,
    _aten.flip.default: reorder,
}
