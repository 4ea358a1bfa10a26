"""Write named padding out: ``"same"`` and ``"valid"`` of convolutions as sizes, circular padding as parts joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from razordeploy.capture.graph import shape_of

_aten = torch.ops.aten
_PLAIN = {
    _aten.conv1d.padding: _aten.conv1d.default,
    _aten.conv2d.padding: _aten.conv2d.default,
    _aten.conv3d.padding: _aten.conv3d.default,
}


def plain_padding(graph_module: fx.GraphModule) -> None:
    """Give such convolutions their sizes; where the two sides differ, a zero padding of its own goes before."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.target not in _PLAIN:
            continue
        shape = shape_of(node.args[1])
        if shape is None:
            continue
        rank = len(shape) - 2
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        dilation = _each(given.get("dilation", 1), rank)
        total = [d * (int(k) - 1) for d, k in zip(dilation, shape[2:], strict=True)]
        if given.get("padding", "valid") == "valid":
            total = [0] * rank
        if any(t % 2 for t in total):
            given["input"] = _padded(graph, node, total)
            total = [0] * rank
        node.target = _PLAIN[node.target]
        stride = _each(given.get("stride", 1), rank)
        node.args = (given["input"], given["weight"], given.get("bias"), stride, [t // 2 for t in total], dilation,
                     given.get("groups", 1))  # fmt: skip
        node.kwargs = {}


def circular_padding(graph_module: fx.GraphModule) -> None:
    """Join the far end, the tensor and the near end along each padded axis: not every engine pads in circles."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.target is not _aten.pad.default or "circular" not in (*node.args[2:3], node.kwargs.get("mode")):
            continue
        value, sizes = node.args[0], node.args[1]
        if any(not isinstance(size, int) or size < 0 for size in sizes):
            continue
        with graph.inserting_before(node):
            for i, (before, behind) in enumerate(zip(sizes[::2], sizes[1::2], strict=True)):
                value = _wrapped(graph, value, node.args[0].meta["val"].dim() - 1 - i, before, behind)
        node.replace_all_uses_with(value)
        graph.erase_node(node)


_END = 2**63 - 1


def _wrapped(graph: fx.Graph, value: fx.Node, axis: int, before: int, behind: int) -> fx.Node:
    parts = [value]
    if before:
        parts.insert(0, _call(graph, _aten.slice.Tensor, (value, axis, -before, _END)))
    if behind:
        parts.append(_call(graph, _aten.slice.Tensor, (value, axis, 0, behind)))
    return _call(graph, _aten.cat.default, (parts, axis)) if len(parts) > 1 else value


def _call(graph: fx.Graph, target: Callable[..., torch.Tensor], args: tuple[Any, ...]) -> fx.Node:
    node = graph.call_function(target, args)
    first = args[0][0] if isinstance(args[0], list) else args[0]
    node.meta.update({key: kept for key, kept in first.meta.items() if key != "val"})
    node.meta["val"] = target(*fx.map_arg(args, lambda n: n.meta["val"]))
    return node


def _each(value: object, rank: int) -> list[int]:
    sizes = [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]  # type: ignore[call-overload]
    return sizes * rank if len(sizes) == 1 else sizes


def _padded(graph: fx.Graph, node: fx.Node, total: list[int]) -> fx.Node:
    """As torch does, the odd cell goes behind."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    sizes = [s for t in reversed(total) for s in (t // 2, t - t // 2)]
    with graph.inserting_before(node):
        pad = graph.call_function(_aten.constant_pad_nd.default, (source, sizes, 0.0))
    pad.meta.update(node.meta)
    value = source.meta["val"]
    pad.meta["val"] = torch.nn.functional.pad(value, sizes)
    return pad
