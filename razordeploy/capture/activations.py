"""Recognise activation functions that a model's code writes out, so that they are planned and exported as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import fx

from razordeploy.capture.graph import attribute

_aten = torch.ops.aten
_ADD = {_aten.add.Tensor, _aten.add.Scalar}
_MUL = {_aten.mul.Tensor, _aten.mul.Scalar}
_DIV = {_aten.div.Tensor, _aten.div.Scalar}
_CLIPS = {_aten.clamp.default, _aten.hardtanh.default}


def recognise_activations(graph_module: fx.GraphModule) -> None:
    """Replace written-out hard-sigmoid, hard-swish, SiLU and GELU by the ATen operator.

    Hard-sigmoid is ``clip(x + 3, 0, 6) / 6`` or ``clip((x + 3) / 6, 0, 1)``; hard-swish and SiLU are the products of
    ``x`` and its hard-sigmoid or sigmoid; GELU is ``x (1 + erf(x / sqrt 2)) / 2`` in any order of its factors.
    """
    graph = graph_module.graph
    match = _Matcher(graph_module)
    for target, find in (
        (_aten.hardsigmoid.default, match.hardsigmoid),
        (_aten.hardswish.default, match.hardswish),
        (_aten.silu.default, match.silu),
        (_aten.gelu.default, match.gelu),
    ):
        for node in list(graph.nodes):
            source = find(node) if node.op == "call_function" else None
            if source is not None:
                _replace(graph, node, target, source)
    graph.eliminate_dead_code()


def _replace(graph: fx.Graph, node: fx.Node, target: Callable[..., torch.Tensor], source: fx.Node) -> None:
    with graph.inserting_before(node):
        made = graph.call_function(target, (source,))
    made.meta.update(node.meta)
    node.replace_all_uses_with(made)
    graph.erase_node(node)


class _Matcher:
    """Each method returns the argument ``x`` of the function that ends at a node, or None."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.module = graph_module

    def hardsigmoid(self, node: fx.Node) -> fx.Node | None:
        scaled = self._scaled(node, 6.0)
        if scaled is not None:  # clip(x + 3, 0, 6) / 6
            clipped = self._clipped(scaled, 0.0, 6.0)
            return None if clipped is None else self._shifted(clipped, 3.0)
        clipped = self._clipped(node, 0.0, 1.0)
        scaled = None if clipped is None else self._scaled(clipped, 6.0)
        return None if scaled is None else self._shifted(scaled, 3.0)

    def hardswish(self, node: fx.Node) -> fx.Node | None:
        for x, gate in self._factors(node):
            if gate.target is _aten.hardsigmoid.default and gate.args[0] is x:
                return x
        product = self._scaled(node, 6.0)  # x * clip(x + 3, 0, 6) / 6
        if product is not None:
            for x, gate in self._factors(product):
                clipped = self._clipped(gate, 0.0, 6.0)
                if clipped is not None and self._shifted(clipped, 3.0) is x:
                    return x
        return None

    def silu(self, node: fx.Node) -> fx.Node | None:
        for x, gate in self._factors(node):
            if gate.target is _aten.sigmoid.default and gate.args[0] is x:
                return x
        return None

    def gelu(self, node: fx.Node) -> fx.Node | None:
        factors = list(self._flat_factors(node))
        numbers = [n for f in factors if (n := self._number(f)) is not None]
        values = [f for f in factors if isinstance(f, fx.Node) and self._number(f) is None]
        if len(values) != 2 or not math.isclose(math.prod(numbers), 0.5, rel_tol=1e-4):
            return None
        for x, gate in (values, values[::-1]):
            inner = self._shifted(gate, 1.0)
            if inner is not None and inner.target is _aten.erf.default and self._half_root(inner.args[0]) is x:
                return x
        return None

    # Pieces ----------------------------------------------------------------------------------------------------

    def _number(self, value: object) -> float | None:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, fx.Node) and value.op == "get_attr":
            tensor = attribute(self.module, str(value.target))
            if isinstance(tensor, torch.Tensor) and tensor.numel() == 1:
                return float(tensor)
        return None

    def _with_number(self, node: object, targets: set[torch._ops.OpOverload]) -> tuple[fx.Node, float] | None:
        if not isinstance(node, fx.Node) or node.target not in targets or len(node.args) < 2 or node.kwargs:
            return None
        left, right = node.args[:2]
        for value, other in ((left, right), (right, left)):
            number = self._number(other)
            if number is not None and isinstance(value, fx.Node) and (value is left or targets is not _DIV):
                return value, number
        return None

    def _shifted(self, node: object, by: float) -> fx.Node | None:
        found = self._with_number(node, _ADD)
        return found[0] if found is not None and math.isclose(found[1], by) else None

    def _scaled(self, node: object, divisor: float) -> fx.Node | None:
        """``x`` of ``x / divisor`` or ``x * (1 / divisor)``."""
        for targets, wanted in ((_DIV, divisor), (_MUL, 1 / divisor)):
            found = self._with_number(node, targets)
            if found is not None and math.isclose(found[1], wanted, rel_tol=1e-4):
                return found[0]
        return None

    def _half_root(self, node: object) -> fx.Node | None:
        return self._scaled(node, math.sqrt(2))

    def _clipped(self, node: object, low: float, high: float) -> fx.Node | None:
        if not isinstance(node, fx.Node):
            return None
        if node.target is _aten.relu6.default:
            return _node(node.args[0]) if (low, high) == (0.0, 6.0) else None
        if node.target not in _CLIPS or node.kwargs or len(node.args) < 3:
            return None
        bounds = [self._number(b) for b in node.args[1:3]]
        return _node(node.args[0]) if bounds == [low, high] else None

    def _factors(self, node: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
        if node.target is _aten.mul.Tensor and all(isinstance(a, fx.Node) for a in node.args[:2]):
            left, right = node.args[:2]
            assert isinstance(left, fx.Node) and isinstance(right, fx.Node)
            yield left, right
            yield right, left

    def _flat_factors(self, node: object, depth: int = 0) -> Iterator[object]:
        """Factors of a product of products; a division by a number is a factor too."""
        if isinstance(node, fx.Node) and depth < 3 and (depth == 0 or len(node.users) == 1):
            divided = self._with_number(node, _DIV)
            if divided is not None:
                yield from self._flat_factors(divided[0], depth + 1)
                yield 1 / divided[1] if divided[1] else math.inf
                return
            if node.target in _MUL and not node.kwargs:
                for factor in node.args[:2]:
                    yield from self._flat_factors(factor, depth + 1)
                return
        yield node


def _node(value: object) -> fx.Node | None:
    return value if isinstance(value, fx.Node) else None
