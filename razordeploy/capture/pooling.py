"""Write adaptive average pooling as the plain operation that it is for known sizes."""

from __future__ import annotations

import torch
from torch import fx

from razordeploy.capture.graph import shape_of

_aten = torch.ops.aten


def plain_pooling(graph_module: fx.GraphModule) -> None:
    """Adaptive pooling to one cell becomes a mean; to a divisor of a fixed input size, ordinary average pooling."""
    for node in graph_module.graph.nodes:
        if node.target is not _aten.adaptive_avg_pool2d.default:
            continue
        size = [int(s) for s in node.args[1]]
        shape = shape_of(node.args[0])
        if size == [1, 1]:
            node.target = _aten.mean.dim
            node.args = (node.args[0], [-2, -1], True)
        elif shape is not None and all(isinstance(s, int) and s % o == 0 for s, o in zip(shape[-2:], size, strict=True)):
            kernel = [int(s) // o for s, o in zip(shape[-2:], size, strict=True)]
            node.target = _aten.avg_pool2d.default
            node.args = (node.args[0], kernel, kernel)
