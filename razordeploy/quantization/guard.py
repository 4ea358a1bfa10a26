"""Measure, on calibration samples, what 8-bit attention costs; what costs too much stays float.

A softmax whose largest weight is near 1 needs a grid that erases the many small weights (Liu et al., "Post-Training
Quantization for Vision Transformer", 2021; Lin et al., FQ-ViT, 2022): whether it does depends on the data alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from razordeploy.capture.graph import CapturedModel
from razordeploy.quantization.compare import sqnr_db
from razordeploy.quantization.op_kinds import BETWEEN_PRODUCTS, kind_of
from razordeploy.quantization.plan import QParams, QuantPlan
from razordeploy.quantization.qparams import fake_quantize

_MOVES = {"reshape", "transpose", "slice", "split", "expand"}


def costly_attention(
    captured: CapturedModel,
    plan: QuantPlan,
    params: Mapping[str, QParams],
    limits_db: Mapping[str, float],
    inputs: tuple[torch.Tensor, ...],
) -> dict[str, str]:
    """Attention products whose 8-bit form changes the attention's own output too much, with the reason.

    Args:
        captured: the float graph.
        plan: a plan in which the products are int8.
        params: its scales.
        limits_db: operation kind -> SQNR in dB that the output of the attention must keep, the operands of its two
            products rounded and everything before them in float.
        inputs: a few samples, ``(N, ...)`` tensors.
    """
    guarded = {op.node: limits_db[op.kind] for op in plan.ops if op.int8 and op.kind in limits_db}
    if not guarded:
        return {}
    with torch.inference_mode():
        run = _Compare(captured.graph_module, plan, params, set(guarded))
        run.run(*inputs)
    reasons = {}
    for names, found in run.measured:
        for name in names & set(guarded):
            if found is not None and found < guarded[name]:
                reasons[name] = (
                    f"8-bit attention here keeps {found:.0f} dB on calibration data, below {guarded[name]:.0f} dB"
                )
    return reasons


class _Compare(fx.Interpreter):
    """Runs the float graph; beside it, from a guarded product to the end of its attention, the rounded values."""

    def __init__(
        self, module: fx.GraphModule, plan: QuantPlan, params: Mapping[str, QParams], guarded: set[str]
    ) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.guarded = guarded
        self.grids = {p.node: params[p.group] for p in plan.points if p.kind == "activation"}
        self.rounded: dict[fx.Node, torch.Tensor] = {}
        self.involved: dict[fx.Node, set[str]] = {}
        self.measured: list[tuple[set[str], float | None]] = []

    def run_node(self, n: fx.Node) -> Any:
        sources = [a for a in n.all_input_nodes if a in self.rounded]
        is_guarded, kind = n.name in self.guarded, kind_of(n)
        follows = bool(sources) and (n.target in BETWEEN_PRODUCTS or kind == "attention_values")
        if not (is_guarded or follows):
            return super().run_node(n)
        args = fx.map_arg(n.args, lambda a: self.rounded.get(a, self.env[a]))
        kwargs = fx.map_arg(n.kwargs, lambda a: self.rounded.get(a, self.env[a]))
        result = super().run_node(n)
        names = {name for a in sources for name in self.involved[a]}
        if is_guarded:
            names.add(n.name)
            args = tuple(self._on_grid(node, value) for node, value in zip(n.args, args, strict=True))
        other = n.target(*args, **kwargs)  # type: ignore[operator]
        if kind == "attention_values":
            self.measured.append((names, sqnr_db(result, other)))
        else:
            self.rounded[n], self.involved[n] = other, names
        for a in sources:
            if all(user.name in {n.name} for user in a.users):
                del self.rounded[a]
        return result

    def _on_grid(self, node: Any, value: Any) -> Any:
        while isinstance(node, fx.Node) and node.name not in self.grids and kind_of(node) in _MOVES:
            node = node.args[0]
        grid = self.grids.get(node.name) if isinstance(node, fx.Node) else None
        return value if grid is None else fake_quantize(value, grid)
