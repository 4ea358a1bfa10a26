"""Activations of a captured graph: how many elements its layers put out, and how much memory is live at once."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from razordeploy.subnet.tracer.layout import Widths
from razordeploy.subnet.tracer.macs import COUNTED
from razordeploy.subnet.tracer.trace import Trace


def produced_elements(trace: Trace, widths: Widths) -> int:
    """Elements that convolutions, linear layers and products put out."""
    return sum(_elements(trace.dims[n], widths) for n in trace.graph_module.graph.nodes if n.target in COUNTED)


def _elements(dims: Any, widths: Widths) -> int:
    total = 1
    for axis in dims:
        total *= widths.size(axis)
    return total


def peak_bytes(trace: Trace, widths: Widths) -> int:
    """Most bytes that tensors made by the graph take at one time, each live from its making to its last use.

    Views take none of their own and keep what they look at alive; parameters are not counted.
    """
    nodes = list(trace.graph_module.graph.nodes)
    roots: dict[fx.Node, fx.Node] = {}
    last: dict[fx.Node, int] = {}
    for position, node in enumerate(nodes):
        roots[node] = roots[node.args[0]] if _is_view(node) and node.args[0] in roots else node
        for arg in node.all_input_nodes:
            last[roots[arg]] = position
    live = peak = 0
    ends: dict[int, int] = {}
    for position, node in enumerate(nodes):
        if roots[node] is node and node.op != "get_attr" and node in trace.dims:
            size = _bytes(node, trace.dims[node], widths)
            live += size
            end = last.get(node, position)
            ends[end] = ends.get(end, 0) + size
        peak = max(peak, live)
        live -= ends.pop(position, 0)
    return peak


def _bytes(node: fx.Node, dims: Any, widths: Widths) -> int:
    if isinstance(dims, tuple):
        values = node.meta["val"]
        return sum(_elements(d, widths) * v.element_size() for d, v in zip(dims, values, strict=False))
    return _elements(dims, widths) * int(node.meta["val"].element_size())


def _is_view(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return True
    schema = getattr(node.target, "_schema", None)
    if schema is None or not node.args:
        return False
    return any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)
