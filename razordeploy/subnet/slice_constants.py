"""The constants of a captured graph that depend on a width: sizes of reshapes, pieces of splits, groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import fx

from razordeploy.subnet.tracer.axes import Axis, find
from razordeploy.subnet.tracer.layout import Widths
from razordeploy.subnet.tracer.trace import Trace

_aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Patch:
    """What a node becomes."""

    target: object
    args: tuple[Any, ...]
    """May hold :class:`Scaled` in the place of a size."""
    kwargs: dict[str, Any]
    constants: tuple[tuple[int, int], ...] = ()
    """``(old, new)`` of the node's numbers, also of those that stay: what the model's own code has to say instead."""


@dataclass(frozen=True)
class Scaled:
    """A size that the graph computes from the batch: ``node * times // over``."""

    node: fx.Node
    times: int
    over: int


_Rule: TypeAlias = Callable[[Trace, fx.Node, Widths], "dict[int | str, Any]"]
"""New values of some arguments, by position or name."""


def patches(trace: Trace, widths: Widths) -> dict[fx.Node, Patch]:
    """New arguments of every node whose constants depend on a width that changes."""
    found = {}
    for node, dims in trace.dims.items():
        axes = [axis for part in dims for axis in part] if isinstance(dims, tuple) else dims
        if not any(widths.size(axis) != find(axis).size for axis in [*axes, *trace.notes.get(node, ())]):
            continue
        if node.target in _CUTS:
            found[node] = _cut(trace, node, widths)
            continue
        rule = _RULES.get(node.target)
        if rule is None:
            continue
        args, kwargs = list(node.args), dict(node.kwargs)
        constants: list[tuple[int, int]] = []
        for key, value in rule(trace, node, widths).items():
            if isinstance(key, int):
                constants += _numbers(args[key], value)
                args[key] = value
            else:
                constants += _numbers(kwargs.get(key), value)
                kwargs[key] = value
        found[node] = Patch(target=node.target, args=tuple(args), kwargs=kwargs, constants=tuple(constants))
    return found


def _numbers(old: object, new: object) -> list[tuple[int, int]]:
    olds, news = (list(v) if isinstance(v, (list, tuple)) else [v] for v in (old, new))
    return [(a, b) for a, b in zip(olds, news, strict=False) if isinstance(a, int) and isinstance(b, int)]


def _sizes(entries: Any, axes: list[Axis], widths: Widths) -> list[Any]:
    """Sizes given as numbers become the new ones; -1 and batch sizes stay; what is computed is scaled."""
    result = []
    for entry, axis in zip(entries, axes, strict=True):
        old, new = find(axis).size, widths.size(axis)
        if new == old or (isinstance(entry, int) and entry == -1):
            result.append(entry)
        elif isinstance(entry, int):
            result.append(new)
        else:
            divisor = math.gcd(new, old)
            result.append(Scaled(entry, new // divisor, old // divisor))
    return result


def _shape_at(position: int) -> _Rule:
    def patch(trace: Trace, node: fx.Node, widths: Widths) -> dict[int | str, Any]:
        return {position: _sizes(node.args[position], trace.dims[node], widths)}

    return patch


def _unflatten(trace: Trace, node: fx.Node, widths: Widths) -> dict[int | str, Any]:
    sizes: Any = node.args[2]
    start: Any = node.args[1]
    dim = int(start) % (len(trace.dims[node]) - len(sizes) + 1)
    axes = trace.dims[node][dim : dim + len(sizes)]
    return {2: _sizes(sizes, axes, widths)}


def _repeat(trace: Trace, node: fx.Node, widths: Widths) -> dict[int | str, Any]:
    source, result = trace.dims[node.args[0]], trace.dims[node]  # type: ignore[index]
    times = list(node.args[1])  # type: ignore[arg-type]
    shift = len(result) - len(source)
    for at, axis in enumerate(result):
        before = widths.size(source[at - shift]) if at >= shift else 1
        if isinstance(times[at], int):
            times[at] = widths.size(axis) // before
    return {1: times}


def _cut(trace: Trace, node: fx.Node, widths: Widths) -> Patch:
    """Equal pieces may not stay equal: any split becomes one with sizes."""
    rank = len(trace.dims[node][0])
    at = next(i for i, argument in enumerate(node.target._schema.arguments) if argument.name == "dim")  # type: ignore[union-attr]
    dim = int(node.args[at] if at < len(node.args) else node.kwargs.get("dim", 0)) % rank  # type: ignore[arg-type]
    sizes = [widths.size(piece) for piece in trace.notes[node]]
    old = [find(piece).size for piece in trace.notes[node]]
    args = (node.args[0], sizes, dim)
    target = _aten.split_with_sizes.default
    return Patch(target=target, args=args, kwargs={}, constants=tuple(_numbers(old, sizes)))


def _narrow(trace: Trace, node: fx.Node, widths: Widths) -> dict[int | str, Any]:
    if node not in trace.notes:
        return {}
    start, length = (widths.size(axis) for axis in trace.notes[node])
    last = length if node.target is _aten.narrow.default else start + length
    name = "length" if node.target is _aten.narrow.default else "end"
    return {2: start, 3: last} if len(node.args) > 3 else {2: start, name: last}


def _pad(trace: Trace, node: fx.Node, widths: Widths) -> dict[int | str, Any]:
    amounts = [
        widths.size(axis) if widths.size(axis) != find(axis).size else given
        for axis, given in zip(trace.notes[node], node.args[1], strict=True)  # type: ignore[arg-type]
    ]
    return {1: amounts}


def _groups(trace: Trace, node: fx.Node, widths: Widths) -> dict[int | str, Any]:
    if node not in trace.notes:
        return {}
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    at = names.index("groups")
    return {at if at < len(node.args) else "groups": widths.size(trace.notes[node][0])}


def _group_norm(trace: Trace, node: fx.Node, widths: Widths) -> dict[int | str, Any]:
    return {1: widths.size(trace.notes[node][0])}


def _layer_norm(trace: Trace, node: fx.Node, widths: Widths) -> dict[int | str, Any]:
    return {1: [widths.size(axis) for axis in trace.notes[node]]}


def _attention(trace: Trace, node: fx.Node, widths: Widths) -> dict[int | str, Any]:
    """The scale that is not given is one over the root of the width that the model was trained with."""
    given = node.kwargs.get("scale")
    width = find(trace.notes[node][0]).size
    return {"scale": 1 / math.sqrt(width) if given is None else given}


_CUTS = {
    *(_aten.split.Tensor, _aten.split.sizes, _aten.split_with_sizes.default, _aten.chunk.default),
    *(_aten.tensor_split.sections, _aten.tensor_split.indices),
}
_RULES: dict[object, _Rule] = {
    _aten.reshape.default: _shape_at(1),
    _aten.view.default: _shape_at(1),
    _aten._unsafe_view.default: _shape_at(1),
    _aten.zeros.default: _shape_at(0),
    _aten.ones.default: _shape_at(0),
    _aten.full.default: _shape_at(0),
    _aten.empty.memory_format: _shape_at(0),
    _aten.new_zeros.default: _shape_at(1),
    _aten.new_ones.default: _shape_at(1),
    _aten.new_full.default: _shape_at(1),
    _aten.new_empty.default: _shape_at(1),
    _aten.expand.default: _shape_at(1),
    _aten.broadcast_to.default: _shape_at(1),
    _aten.unflatten.int: _unflatten,
    _aten.repeat.default: _repeat,
    _aten.tile.default: _repeat,
    _aten.slice.Tensor: _narrow,
    _aten.narrow.default: _narrow,
    _aten.pad.default: _pad,
    _aten.constant_pad_nd.default: _pad,
    _aten.conv1d.default: _groups,
    _aten.conv2d.default: _groups,
    _aten.conv3d.default: _groups,
    _aten.conv1d.padding: _groups,
    _aten.conv2d.padding: _groups,
    _aten.conv3d.padding: _groups,
    _aten.convolution.default: _groups,
    _aten.conv_transpose1d.default: _groups,
    _aten.conv_transpose2d.input: _groups,
    _aten.conv_transpose3d.input: _groups,
    _aten.group_norm.default: _group_norm,
    _aten.layer_norm.default: _layer_norm,
    _aten.rms_norm.default: _layer_norm,
    _aten.native_layer_norm.default: _layer_norm,
    _aten.scaled_dot_product_attention.default: _attention,
}
