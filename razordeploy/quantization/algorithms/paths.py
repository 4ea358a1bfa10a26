"""From a layer's output to the layers that read it, through operations that a factor per channel passes through."""

from __future__ import annotations

import torch
from torch import fx

from razordeploy.capture.graph import shape_of
from razordeploy.quantization.algorithms.layers import Layer, layer_of
from razordeploy.quantization.op_kinds import kind_of

_aten = torch.ops.aten
_HOMOGENEOUS = {"relu", "leaky_relu", "prelu"}
_POOLS = {"max_pool", "avg_pool", "global_avg_pool", "adaptive_avg_pool"}
_BOUNDED = {_aten.hardtanh.default, _aten.relu6.default, _aten.clamp.default}


def is_homogeneous(node: fx.Node) -> bool:
    """``f(s x) = s f(x)`` for every positive s of a channel."""
    kind = kind_of(node)
    if node.target is _aten.clamp_min.default:
        return bool(node.args[1] == 0)
    return kind in _HOMOGENEOUS or kind in _POOLS or kind == "pad"


def is_relu6(node: fx.Node) -> bool:
    """A ReLU with an upper bound."""
    return node.target in _BOUNDED and (len(node.args) < 2 or bool(node.args[1] == 0))


def keeps_channels(node: fx.Node) -> bool:
    """A reshape of ``(N, C, 1, 1)`` to ``(N, C)``."""
    source = node.args[0] if node.args else None
    if kind_of(node) != "reshape" or not isinstance(source, fx.Node):
        return False
    before, after = shape_of(source), shape_of(node)
    if before is None or after is None or len(after) != 2 or len(before) < 3:
        return False
    return before[1] == after[1] and all(size == 1 for size in before[2:])


def only_reader(layer: Layer, *, through_relu6: bool = False) -> tuple[Layer, list[fx.Node]] | None:
    """The one layer that reads ``layer``'s output, and the bounded ReLUs on the way; None where others read it too."""
    node, bounded = layer.node, list[fx.Node]()
    while len(node.users) == 1:
        user = next(iter(node.users))
        reader = layer_of(user)
        if reader is not None:
            return (reader, bounded) if reader.input is node else None
        if not user.args or user.args[0] is not node:
            return None
        if is_relu6(user) and through_relu6:
            bounded.append(user)
        elif not (is_homogeneous(user) or keeps_channels(user)):
            return None
        node = user
    return None
