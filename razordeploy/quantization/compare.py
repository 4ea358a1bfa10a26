"""Per-layer comparison of the float graph and its simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from razordeploy.capture.graph import CapturedModel
from razordeploy.quantization.plan import QParams, QuantPlan
from razordeploy.quantization.simulate import simulate


def sqnr_db(reference: torch.Tensor, tested: torch.Tensor) -> float | None:
    """Signal to quantization noise, ``10 log10(sum x^2 / sum (x - y)^2)``, in dB; None where there is no noise."""
    x, y = reference.double(), tested.double()
    noise, signal = float(((x - y) ** 2).sum()), float((x**2).sum())
    return None if noise == 0 or signal == 0 else float(10 * torch.log10(torch.tensor(signal / noise)))


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, wanted: set[str]) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.wanted = wanted
        self.values: dict[str, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.wanted and isinstance(result, torch.Tensor):
            self.values[n.name] = result
        return result


def layer_sqnr(
    captured: CapturedModel, plan: QuantPlan, params: Mapping[str, QParams], inputs: tuple[torch.Tensor, ...]
) -> list[dict[str, Any]]:
    """SQNR of every quantized operation's output, all quantization up to it included.

    Args:
        captured: the float graph.
        plan: one backend's plan.
        params: its scales.
        inputs: one small batch, ``(N, ...)`` tensors.
    """
    wanted = {op.node for op in plan.ops if op.int8}
    tested = simulate(captured, plan, params)
    with torch.inference_mode():
        reference = _Recorder(captured.graph_module, wanted)
        reference.run(*inputs)
        other = _Recorder(tested, wanted)
        other.run(*inputs)
    return [
        {
            "node": op.node,
            "module": op.module,
            "op": op.kind,
            "sqnr_db": sqnr_db(reference.values[op.node], other.values[op.node]),
        }
        for op in plan.ops
        if op.node in reference.values and op.node in other.values
    ]
