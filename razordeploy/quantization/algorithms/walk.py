"""Run the float model and its quantized draft side by side, node by node, over all samples at once.

An algorithm that treats one layer after the other sees what the layers before it, already treated, give to the next,
and no layer is run twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from razordeploy.quantization.algorithms.data import Work
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.plan import QuantPoint
from razordeploy.quantization.qparams import fake_quantize

Values = list[Any]
"""A node's value, one entry a batch."""
Visit = Callable[[fx.Node], None]


class Walk:
    """One pass through the graph.

    Args:
        draft: the model; what an algorithm changes in it before a node runs counts for that node.
        work: the samples.
        limit: samples to use; None: all.
        quantized: False runs the float model alone.
        active: says which points round in the quantized model; None: all.
    """

    def __init__(
        self,
        draft: Draft,
        work: Work,
        *,
        limit: int | None = None,
        quantized: bool = True,
        active: Callable[[QuantPoint], bool] | None = None,
    ) -> None:
        self.draft, self.work, self.quantized = draft, work, quantized
        self.floats: dict[fx.Node, Values] = {}
        self.rounded: dict[fx.Node, Values] = {}
        self.active = active or (lambda point: True)
        self.inputs = list(work.batches(limit))
        self.points: dict[tuple[str, str], QuantPoint] = {}
        self.read_points()

    def read_points(self) -> None:
        """Take the points from the draft's plan."""
        plan = self.draft.plan
        self.points = {(p.node, user): p for p in plan.points for user in p.users}

    def run(self, *, before: Visit | None = None, after: Visit | None = None) -> None:
        """Run every operation; ``before`` and ``after`` are called with each, its arguments still at hand."""
        nodes = [n for n in self.draft.captured.graph.nodes if n.op in ("placeholder", "call_function")]
        order = {node: i for i, node in enumerate(nodes)}
        last = {n: max((order.get(u, len(nodes)) for u in n.users), default=order[n]) for n in nodes}
        inputs = iter(range(len(self.inputs[0])))
        for index, node in enumerate(nodes):
            self.work.pause()
            if node.op == "placeholder":
                self._feed(node, next(inputs))
                continue
            if before is not None:
                before(node)
            with torch.no_grad():
                self._run(node)
            if after is not None:
                after(node)
            for source in [n for n in self.floats if last[n] <= index]:
                del self.floats[source]
                self.rounded.pop(source, None)

    def _feed(self, node: fx.Node, index: int) -> None:
        self.floats[node] = [batch[index] for batch in self.inputs]
        self.rounded[node] = self.floats[node]

    def _run(self, node: fx.Node) -> None:
        batches = range(len(self.inputs))
        self.floats[node] = [self.call(node, *self.float_args(node, i)) for i in batches]
        if self.quantized:
            self.rounded[node] = [self.call(node, *self.rounded_args(node, i)) for i in batches]

    @staticmethod
    def call(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run ``node`` on other arguments."""
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def float_args(self, node: fx.Node, batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of ``node`` in the float model."""

        def value(source: fx.Node) -> Any:
            return self.draft.float_constant(source) if source.op == "get_attr" else self.floats[source][batch]

        return fx.map_arg(node.args, value), fx.map_arg(node.kwargs, value)

    def rounded_args(self, node: fx.Node, batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of ``node`` in the quantized model, each rounded to its grid."""

        def value(source: fx.Node) -> Any:
            found = self.draft.constant(source) if source.op == "get_attr" else self.rounded[source][batch]
            return self.on_grid(source, node, found)

        return fx.map_arg(node.args, value), fx.map_arg(node.kwargs, value)

    def on_grid(self, source: fx.Node, user: fx.Node, value: Any) -> Any:
        """``value`` as ``user`` reads it from ``source``."""
        point = self.points.get((source.name, user.name))
        if point is None or not self.active(point):
            return value
        return fake_quantize(value, self.draft.params[point.group])
