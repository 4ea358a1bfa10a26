"""Compute, once, everything in a graph that depends on parameters alone."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from razordeploy.capture.graph import attribute, flat_nodes

_RANDOM = ("rand", "normal", "bernoulli", "dropout", "multinomial", "poisson", "empty")


def fold_constants(graph_module: fx.GraphModule) -> None:
    """Replace nodes whose inputs are all constant by buffers (weight standardisation, position bias tables)."""
    graph = graph_module.graph
    known: dict[fx.Node, Any] = {}
    folded: list[fx.Node] = []
    for node in graph.nodes:
        if node.op == "get_attr":
            known[node] = attribute(graph_module, str(node.target))
        elif node.op == "call_function" and _is_pure(node):
            inputs = list(flat_nodes((node.args, node.kwargs)))
            if all(i in known for i in inputs) and (inputs or makes_tensor(node)):
                known[node] = run_node(node, known)
                folded.append(node)
    constants = set(folded)
    for node in folded:
        if isinstance(known[node], torch.Tensor) and any(user not in constants for user in node.users):
            materialise(graph_module, node, known[node])
    graph.eliminate_dead_code()


def _is_pure(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return True
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        return False
    return not node.target._schema.is_mutable and not is_random(node)


def is_random(node: fx.Node) -> bool:
    """Tell whether an operator's result differs from call to call, or is not defined at all."""
    name = node.target._schema.name if isinstance(node.target, torch._ops.OpOverload) else ""
    return name.partition("::")[2].startswith(_RANDOM)


def makes_tensor(node: fx.Node) -> bool:
    """Tell whether the result is one tensor whose sizes are all known."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and all(isinstance(size, int) for size in value.shape)


def run_node(node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    """Result of an operator whose inputs are all in ``known``."""
    args = fx.map_arg(node.args, lambda n: known[n])
    kwargs = fx.map_arg(node.kwargs, lambda n: known[n])
    with torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]


def materialise(graph_module: fx.GraphModule, node: fx.Node, value: object) -> None:
    """Let the readers of ``node`` read a buffer with a copy of ``value``."""
    assert isinstance(value, torch.Tensor)
    name = f"_constant_{node.name}"
    graph_module.register_buffer(name, value.detach().clone())
    with graph_module.graph.inserting_before(node):
        constant = graph_module.graph.get_attr(name)
    constant.meta.update(node.meta)
    node.replace_all_uses_with(constant)
