"""Write adaptive average pooling and spatial means as the plain operations that they are for known sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from razordeploy.capture.graph import shape_of

_aten = torch.ops.aten

_ADAPTIVE = {
    _aten.adaptive_avg_pool1d.default: _aten.avg_pool1d.default,
    _aten.adaptive_avg_pool2d.default: _aten.avg_pool2d.default,
    _aten.adaptive_avg_pool3d.default: _aten.avg_pool3d.default,
}


_CEIL_MODE = {
    _aten.avg_pool1d.default: 4,
    _aten.avg_pool2d.default: 4,
    _aten.avg_pool3d.default: 4,
    _aten.max_pool1d.default: 5,
    _aten.max_pool2d.default: 5,
    _aten.max_pool3d.default: 5,
}
"""Pooling -> position of ``ceil_mode`` among its arguments; of the kernel, stride and padding 1, 2 and 3."""


def plain_pooling(graph_module: fx.GraphModule) -> None:
    """Adaptive pooling to one cell becomes a mean; to a divisor of a fixed input size, ordinary average pooling.

    ``ceil_mode`` goes where no window reaches over the edge: engines have int8 kernels for the plain form alone.

    A mean over the axes of an image that drops them becomes one that keeps them and a flatten: engines pool in int8,
    and have no int8 kernel for other means.
    """
    for node in list(graph_module.graph.nodes):
        if node.target in _ADAPTIVE:
            _plain_adaptive(node)
        elif node.target is _aten.mean.dim:
            _keep_axes(graph_module.graph, node)
        elif node.target in _CEIL_MODE:
            _plain_ceil(node, _CEIL_MODE[node.target])


def _plain_adaptive(node: fx.Node) -> None:
    shape = shape_of(node.args[0])  # type: ignore[arg-type]
    if shape is None:
        return
    size = [shape[len(shape) - len(node.args[1]) + i] if s is None else int(s) for i, s in enumerate(node.args[1])]  # type: ignore
    if all(s == 1 for s in size):
        node.target = _aten.mean.dim
        node.args = (node.args[0], list(range(-len(size), 0)), True)
    elif all(
        isinstance(s, int) and isinstance(o, int) and s % o == 0 for s, o in zip(shape[-len(size) :], size, strict=True)
    ):
        kernel = [int(s) // int(o) for s, o in zip(shape[-len(size) :], size, strict=True)]
        node.target = _ADAPTIVE[node.target]  # type: ignore[index]
        node.args = (node.args[0], kernel, kernel)


def _plain_ceil(node: fx.Node, position: int) -> None:
    shape = shape_of(node.args[0])  # type: ignore[arg-type]
    if shape is None or len(node.args) <= position or not node.args[position]:
        return
    dims = 1 if "1d" in str(node.target) else 2 if "2d" in str(node.target) else 3
    stride = node.args[2] or node.args[1]
    dilation = node.args[4] if position > 4 else 1
    window = zip(*(_each(v, dims) for v in (node.args[1], stride, node.args[3], dilation)), strict=True)
    sizes = shape[len(shape) - dims :]
    for size, (kernel, step, pad, apart) in zip(sizes, window, strict=True):
        if not isinstance(size, int) or (size + 2 * pad - apart * (kernel - 1) - 1) % step:
            return
    node.args = (*node.args[:position], False, *node.args[position + 1 :])


def _each(value: Any, dims: int) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return [int(v) for v in values] * (dims if len(values) == 1 else 1)


def _keep_axes(graph: fx.Graph, node: fx.Node) -> None:
    shape = shape_of(node.args[0])  # type: ignore[arg-type]
    keeps = len(node.args) > 2 and bool(node.args[2])
    if shape is None or len(shape) < 4 or keeps or not isinstance(node.args[1], (list, tuple)) or node.kwargs:
        return
    if sorted(int(a) % len(shape) for a in node.args[1]) != list(range(2, len(shape))):  # type: ignore[arg-type]
        return
    value = node.meta["val"]
    with graph.inserting_after(node):
        flat = graph.call_function(_aten.flatten.using_ints, (node, 1))
    flat.meta.update(node.meta)
    node.replace_all_uses_with(flat, delete_user_cb=lambda user: user is not flat)
    node.args = (node.args[0], list(node.args[1]), True)
    node.meta["val"] = value.reshape(*value.shape, *[1] * (len(shape) - 2))
