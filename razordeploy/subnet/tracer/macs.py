"""Multiply-accumulates of each operator, as a product of axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import fx

from razordeploy.capture.graph import module_path
from razordeploy.subnet.tracer.axes import Axis, find
from razordeploy.subnet.tracer.layout import Widths
from razordeploy.subnet.tracer.rules_layers import CONVOLUTIONS
from razordeploy.subnet.tracer.trace import Trace

_aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Term:
    """A number that is a product of widths."""

    axes: tuple[Axis, ...]
    """Axes that some choice may make narrower."""
    constant: int
    """Product of everything else."""
    module: str
    """Dotted path of the module that it comes from; empty at the root."""

    def value(self, widths: Widths) -> int:
        """The number under a choice of widths."""
        return self.constant * math.prod(map(widths.size, self.axes))


def term(axes: Iterable[Axis], module: str = "", constant: int = 1) -> Term:
    """Multiply axes, those that cannot change into the constant."""
    open_axes = []
    for axis in map(find, axes):
        if axis.kind == "leaf" and any(mate.reason for mate in axis.mates):
            constant *= axis.size
        else:
            open_axes.append(axis)
    return Term(axes=tuple(open_axes), constant=constant, module=module)


def multiply_accumulates(trace: Trace) -> Iterator[Term]:
    """Terms whose sum is the number of multiply-accumulates of convolutions, linear layers and products.

    Element-wise operators, norms, pooling and biases are left out, as ``torch.utils.flop_counter`` leaves them out.
    """
    for node in trace.graph_module.graph.nodes:
        count = COUNTED.get(node.target)
        if count is not None and node in trace.dims:
            path = module_path(node)
            for axes in count(trace, node):
                yield term(axes, path)


_Count: TypeAlias = Callable[[Trace, fx.Node], "list[list[Axis]]"]


def _axes(trace: Trace, node: object) -> list[Axis]:
    return list(trace.dims[node])  # type: ignore[index]


def _convolution(trace: Trace, node: fx.Node) -> list[list[Axis]]:
    """Every output (transposed: input) element takes one pass over a filter."""
    weight = _axes(trace, node.args[1])
    grouped = trace.grouped.get(str(node.args[1].target)) if isinstance(node.args[1], fx.Node) else None
    own = grouped.own[0] if grouped is not None else weight[1]
    transposed = "transpose" in str(node.target) or (node.target is _aten.convolution.default and bool(node.args[6]))
    return [[*_axes(trace, node.args[0] if transposed else node), own, *weight[2:]]]


def _linear(trace: Trace, node: fx.Node) -> list[list[Axis]]:
    return [[*_axes(trace, node), _axes(trace, node.args[1])[1]]]


def _product(first: int) -> _Count:
    def count(trace: Trace, node: fx.Node) -> list[list[Axis]]:
        left, right = _axes(trace, node.args[first]), _axes(trace, node.args[first + 1])
        rows, columns = left[-2:-1], right[-1:] if len(right) > 1 else []
        batch = trace.dims[node][: len(trace.dims[node]) - len(rows) - len(columns)]
        return [[*batch, *rows, *columns, left[-1]]]

    return count


def _attention(trace: Trace, node: fx.Node) -> list[list[Axis]]:
    query, key, value = (_axes(trace, node.args[i]) for i in range(3))
    scores = [*trace.dims[node][:-1], key[-2]]
    return [[*scores, query[-1]], [*scores, value[-1]]]


def _einsum(trace: Trace, node: fx.Node) -> list[list[Axis]]:
    """Of two operands: one accumulation for every combination of letters."""
    inputs, _, output = str(node.args[0]).replace(" ", "").partition("->")
    if inputs.count(",") != 1 or "." in inputs:
        return []
    letters: dict[str, Axis] = {}
    for names, arg in zip(inputs.split(","), node.args[1], strict=True):  # type: ignore[arg-type]
        for name, axis in zip(names, _axes(trace, arg), strict=True):
            if name not in letters or find(letters[name]).size == 1:
                letters[name] = axis
    if set(inputs) - {","} == set(output):
        return []  # element-wise
    return [list(letters.values())]


COUNTED: dict[object, _Count] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    _aten.linear.default: _linear,
    _aten.matmul.default: _product(0),
    _aten.mm.default: _product(0),
    _aten.bmm.default: _product(0),
    _aten.addmm.default: _product(1),
    _aten.baddbmm.default: _product(1),
    _aten.scaled_dot_product_attention.default: _attention,
    _aten.einsum.default: _einsum,
}
"""Operators that multiply and accumulate, with how to count them."""
