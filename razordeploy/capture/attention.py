"""Write fused attention out as matrix products and a softmax, so that each product can be planned on its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

_aten = torch.ops.aten
_SDPA = _aten.scaled_dot_product_attention.default


def write_out_attention(graph_module: fx.GraphModule) -> None:
    """Replace ``scaled_dot_product_attention`` by ``softmax(q k^T / sqrt(d) + mask) v``; causal masks stay fused."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is _SDPA:
            _write_out(graph, node)
    graph.eliminate_dead_code()


def _write_out(graph: fx.Graph, node: fx.Node) -> None:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    query, key, value = given["query"], given["key"], given["value"]
    mask = given.get("attn_mask")
    mask_value = mask.meta.get("val") if isinstance(mask, fx.Node) else None
    if given.get("is_causal") or given.get("enable_gqa"):
        return
    assert isinstance(query, fx.Node) and isinstance(key, fx.Node) and isinstance(value, fx.Node)
    scale = given.get("scale") or 1 / math.sqrt(query.meta["val"].shape[-1])

    def call(target: Callable[..., torch.Tensor], *args: Any) -> fx.Node:
        new = graph.call_function(target, args)
        new.meta.update({k: v for k, v in node.meta.items() if k != "val"})
        with node.meta["val"].fake_mode if hasattr(node.meta["val"], "fake_mode") else torch.no_grad():
            values = fx.map_arg(args, lambda n: n.meta["val"])
            new.meta["val"] = target(*values)
        return new

    with graph.inserting_before(node):
        product = call(_aten.matmul.default, query, call(_aten.transpose.int, key, -2, -1))
        scores = call(_aten.mul.Tensor, product, scale)  # behind the product: engines fuse it there, and q stays as is
        if mask_value is not None and mask_value.dtype == torch.bool:
            scores = call(_aten.masked_fill.Scalar, scores, call(_aten.logical_not.default, mask), -math.inf)
        elif mask is not None:
            scores = call(_aten.add.Tensor, scores, mask)
        result = call(_aten.matmul.default, call(_aten.softmax.int, scores, -1), value)
    node.replace_all_uses_with(result)
    graph.erase_node(node)


def scale_behind_product(graph_module: fx.GraphModule) -> None:
    """``(q * c) @ k`` with a number ``c`` becomes ``(q @ k) * c``: the same values, one pass over memory less."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.target is not _aten.matmul.default or node.kwargs:
            continue
        scaled = node.args[0]
        is_scaled = isinstance(scaled, fx.Node) and scaled.target is _aten.mul.Tensor and len(scaled.users) == 1
        if not is_scaled or not isinstance(scaled.args[1], (int, float)):
            continue
        query, number = scaled.args
        node.args = (query, node.args[1])
        with graph.inserting_after(node):
            product = graph.call_function(_aten.mul.Tensor, (node, number))
        product.meta.update(node.meta)
        node.replace_all_uses_with(product, delete_user_cb=lambda user, own=product: user is not own)
    graph.eliminate_dead_code()
