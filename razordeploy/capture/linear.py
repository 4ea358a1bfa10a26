"""Write products with a constant matrix as the linear layers that they are."""

from __future__ import annotations

import torch
from torch import fx

from razordeploy.capture.graph import attribute

_aten = torch.ops.aten
_PRODUCTS = {_aten.matmul.default, _aten.mm.default}


def products_to_linear(graph_module: fx.GraphModule) -> None:
    """``x @ W`` and ``x @ W + b`` with constants ``W (in, out)`` and ``b (out,)`` become ``linear(x, W^T, b)``.

    So they are planned and calibrated as linear layers, per output channel.
    """
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.target in _PRODUCTS:
            x, weight, bias = node.args[0], node.args[1], None
        elif node.target is _aten.addmm.default and not node.kwargs:
            bias, x, weight = node.args
        else:
            continue
        matrix = _constant(graph_module, weight)
        vector = _constant(graph_module, bias)
        if matrix is None or matrix.dim() != 2 or _constant(graph_module, x) is not None:
            continue
        if bias is not None and (vector is None or vector.shape != matrix.shape[1:]):
            continue
        with graph.inserting_before(node):
            transposed = _transposed(graph_module, f"_{node.name}_weight", matrix, weight)
            linear = graph.call_function(_aten.linear.default, (x, transposed, *([bias] if bias is not None else [])))
        linear.meta.update(node.meta)
        node.replace_all_uses_with(linear)
        graph.erase_node(node)
        if bias is None:
            _take_bias(graph_module, linear)


def _take_bias(graph_module: fx.GraphModule, linear: fx.Node) -> None:
    """Let ``linear``, which has no bias, compute the addition of a constant that alone reads it."""
    add = next(iter(linear.users), None)
    if add is None or len(linear.users) > 1 or add.target is not _aten.add.Tensor or add.kwargs:
        return
    bias = next((a for a in add.args if a is not linear), None)
    vector = _constant(graph_module, bias)
    if vector is None or vector.shape != linear.meta["val"].shape[-1:] or linear.meta["val"].dim() < 2:
        return
    with graph_module.graph.inserting_before(add):
        joined = graph_module.graph.call_function(_aten.linear.default, (*linear.args, bias))
    joined.meta.update(linear.meta)
    add.replace_all_uses_with(joined)
    graph_module.graph.erase_node(add)
    graph_module.graph.erase_node(linear)


def _constant(graph_module: fx.GraphModule, node: object) -> torch.Tensor | None:
    if isinstance(node, fx.Node) and node.op == "get_attr":
        value: torch.Tensor = attribute(graph_module, str(node.target)).detach()
        return value
    return None


def _transposed(graph_module: fx.GraphModule, name: str, matrix: torch.Tensor, source: fx.Node) -> fx.Node:
    value = matrix.t().contiguous()
    graph_module.register_buffer(name, value)
    node = graph_module.graph.get_attr(name)
    node.meta.update({"val": value, "origin": str(source.target)})
    return node
