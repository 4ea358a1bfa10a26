"""The quantized model in torch: the float graph with a fake quant at every point of the plan."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from razordeploy.capture.graph import CapturedModel, attribute
from razordeploy.quantization.plan import QParams, QuantPlan
from razordeploy.quantization.qparams import fake_quantize


class _FakeQuant(torch.nn.Module):
    def __init__(self, params: QParams) -> None:
        super().__init__()
        self.params = params

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fake_quantize(x, self.params)


def simulate(captured: CapturedModel, plan: QuantPlan, params: Mapping[str, QParams]) -> fx.GraphModule:
    """Return a copy of the captured graph that rounds every planned value to its grid.

    Parameters that are not quantized are shared with ``captured``; quantized weights are rounded once, here.
    """
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(captured.graph, copied))
    graph._codegen = captured.graph._codegen
    module = fx.GraphModule(captured.graph_module, graph)
    by_name = {node.name: copied[node] for node in captured.graph.nodes if node in copied}
    by_name["output"] = next(n for n in graph.nodes if n.op == "output")
    for i, point in enumerate(plan.points):
        value, qparams = by_name[point.node], params[point.group]
        if point.kind == "weight":
            weight = attribute(captured.graph_module, str(value.target)).detach()
            module.register_buffer(f"_weight_{i}", fake_quantize(weight, qparams))
            with graph.inserting_after(value):
                rounded = graph.get_attr(f"_weight_{i}")
        else:
            module.add_submodule(f"_fake_quant_{i}", _FakeQuant(qparams))
            with graph.inserting_after(value):
                rounded = graph.call_module(f"_fake_quant_{i}", (value,))
        for user in point.users:
            by_name[user].replace_input_with(value, rounded)
    module.recompile()
    return module
