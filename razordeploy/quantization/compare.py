"""Per-layer comparison of the float graph and its simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import fx

from razordeploy.capture.fast import fast_copy, fast_input
from razordeploy.capture.graph import CapturedModel
from razordeploy.quantization.plan import QuantPlan


def sqnr_db(reference: torch.Tensor, tested: torch.Tensor) -> float | None:
    """Signal to quantization noise, ``10 log10(sum x^2 / sum (x - y)^2)``, in dB; None where there is no noise."""
    noise, signal = _power(reference - tested), _power(reference)
    if not math.isfinite(noise + signal):  # squares of large values leave the range of float32
        noise, signal = _power(reference.double() - tested.double()), _power(reference.double())
    return None if noise == 0 or signal == 0 else 10 * math.log10(signal / noise)


def _power(x: torch.Tensor) -> float:
    return float(x.square().sum())


class Compared(NamedTuple):
    """A float graph and its simulation on the same inputs."""

    layers: list[dict[str, Any]]
    """SQNR of every quantized operation's output, all quantization up to it included."""
    simulated: tuple[torch.Tensor, ...]
    """The simulation's outputs."""
    float: tuple[torch.Tensor, ...]
    """The float graph's outputs."""


class _Watcher(fx.Interpreter):
    """Runs a graph and hands the values of some nodes to ``see``, each as soon as it is there."""

    def __init__(self, module: fx.GraphModule, wanted: set[str], see: Callable[[str, torch.Tensor], None]) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.wanted, self.see = wanted, see

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.wanted and isinstance(result, torch.Tensor):
            self.see(n.name, result)
        return result


def compare_layers(
    captured: CapturedModel, plan: QuantPlan, simulated: fx.GraphModule, inputs: tuple[torch.Tensor, ...]
) -> Compared:
    """Run both graphs; what the layers lose, and what comes out.

    Args:
        captured: the float graph.
        plan: one backend's plan.
        simulated: the simulation of that plan.
        inputs: one small batch, ``(N, ...)`` tensors.
    """
    wanted = {op.node for op in plan.ops if op.int8}
    expected: dict[str, torch.Tensor] = {}
    found: dict[str, float | None] = {}

    def hold_against_float(name: str, value: torch.Tensor) -> None:
        if name in expected:
            found[name] = sqnr_db(expected.pop(name), value)

    with torch.inference_mode():
        laid_out = tuple(map(fast_input, inputs))
        clean = _Watcher(fast_copy(captured.graph_module), wanted, expected.__setitem__).run(*laid_out)
        noisy = _Watcher(fast_copy(simulated), wanted, hold_against_float).run(*laid_out)
    layers = [
        {"node": op.node, "module": op.module, "op": op.kind, "sqnr_db": found[op.node]}
        for op in plan.ops
        if op.node in found
    ]
    return Compared(layers, *(tuple(torch.utils._pytree.tree_leaves(found)) for found in (noisy, clean)))
