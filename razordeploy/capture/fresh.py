"""Compute the constants that a model builds by writing into new tensors (window masks, tables of positions).

Only torch's own functionalization, which traces the whole graph anew, can follow a write through a view of them.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from razordeploy.capture.constants import is_random, makes_tensor, materialise, run_node
from razordeploy.capture.graph import attribute, flat_nodes

_COPIES = {torch.ops.aten.lift_fresh_copy.default}


def fold_fresh(graph_module: fx.GraphModule, *, only_written: bool = False) -> None:
    """Replace what is built from new tensors alone by buffers, writes in place included.

    Nothing changes where the rest of the graph writes into such a tensor, or reads one before the last write into it.

    Args:
        graph_module: changed in place.
        only_written: leave new tensors as they are that nothing writes into, nor into what they are made from.
    """
    graph = graph_module.graph
    if not any(_writes(node) for node in graph.nodes):
        return
    known: dict[fx.Node, Any] = {}
    views: set[fx.Node] = set()
    read: set[int] = set()
    for node in graph.nodes:
        if node.op == "get_attr" and all(user.target in _COPIES for user in node.users):
            known[node] = attribute(graph_module, str(node.target))  # a number or a list in the model's code
            continue
        inputs = list(flat_nodes((node.args, node.kwargs)))
        if _computable(node) and all(i in known for i in inputs) and (inputs or makes_tensor(node)):
            known[node] = run_node(node, known)
            if _writes(node) and _memory(known[node]) in read:
                return
            continue
        touched = [i for i in inputs if i in known or i in views]
        if not touched:
            continue
        if _writes(node):
            return
        if is_view(node):
            views.add(node)
        read |= {_memory(known[i]) for i in touched if i in known}
    if only_written:
        known = _written(known)
    for node, value in known.items():
        if isinstance(value, torch.Tensor) and any(user not in known for user in node.users):
            materialise(graph_module, node, value)
    for node in reversed(list(known)):
        graph.erase_node(node)


def _written(known: dict[fx.Node, Any]) -> dict[fx.Node, Any]:
    """Of nodes with their values those in whose memory something is written, and those that are made from them."""
    memory = {_memory(known[node]) for node in known if _writes(node)}
    found: dict[fx.Node, Any] = {}
    for node, value in known.items():
        if _memory(value) in memory or any(i in found for i in flat_nodes((node.args, node.kwargs))):
            found[node] = value
    return found


def is_view(node: fx.Node) -> bool:
    """Tell whether the result may share memory with the first argument."""
    if node.op != "call_function" or not node.args:
        return False
    if node.target is operator.getitem:
        return True
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return any(r.alias_info is not None and not r.alias_info.is_write for r in node.target._schema.returns)


def _computable(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return True
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    in_place = node.target._schema.name.endswith("_")
    return node.target.namespace == "aten" and not is_random(node) and in_place == node.target._schema.is_mutable


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _memory(value: Any) -> int:
    return value.untyped_storage().data_ptr() if isinstance(value, torch.Tensor) else 0
