"""From a plan and a budget to the bits of every layer, as overrides of the recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from razordeploy.capture.graph import CapturedModel, attribute, module_path, shape_of
from razordeploy.config.mixed import MixedPrecisionConfig
from razordeploy.config.qconfig import QConfig, QConfigOverride, QuantizeConfig, SchemeOverride
from razordeploy.errors import RecipeError
from razordeploy.quantization.mixed.allocate import Choice, allocate
from razordeploy.quantization.mixed.sensitivity import divergence_harms, hessian_harms, monotone
from razordeploy.quantization.observers.table import build_observer
from razordeploy.quantization.op_kinds import kind_of
from razordeploy.quantization.plan import QuantPlan, QuantPoint
from razordeploy.quantization.qparams import compute_qparams, fake_quantize

_OBSERVER = "MSEObserver"


@dataclass(frozen=True, kw_only=True)
class LayerBits:
    """What was chosen for one layer."""

    module: str
    kind: str
    """Kind of its operation."""
    bits: int
    harm: float
    """Of the chosen width."""
    cost: float
    """In the budget's unit; of mean_bits, weights times bits."""
    weights: int
    """How many it has."""


def assign_bits(
    captured: CapturedModel,
    plan: QuantPlan,
    config: MixedPrecisionConfig,
    batches: Iterable[tuple[Tensor, ...]],
) -> list[LayerBits]:
    """Choose the width of every quantized weight; the sum of costs is within the budget.

    Args:
        captured: the float graph.
        plan: what is quantized, with any widths.
        config: widths, budget and criterion.
        batches: input tensors ``(N, ...)`` of a few samples.

    Raises:
        RecipeError: no weight is quantized, two layers of a module share a name, or the budget cannot be met.
    """
    nodes = {n.name: n for n in captured.graph.nodes}
    weights = {p.node: p for p in plan.points if p.kind == "weight"}
    if not weights:
        raise RecipeError("mixed precision: the plan quantizes no weight")
    targets = {name: str(nodes[name].target) for name in weights}
    points = {targets[name]: point for name, point in weights.items()}

    def rounded(target: str, bits: int) -> Tensor:
        return _rounded(captured, points[target], bits)

    measure = hessian_harms if config.criterion == "hessian" else divergence_harms
    options = {"probes": config.probes} if config.criterion == "hessian" else {}
    harms = monotone(measure(captured, rounded, list(points), config.bits, list(batches), **options))
    costs = _Costs(captured, plan, config, weights)
    layers = [
        [Choice(bits=b, cost=costs.of(name, b), harm=harms[targets[name]][b]) for b in config.bits] for name in weights
    ]
    chosen = allocate(layers, config.limit * costs.unit)
    return [
        LayerBits(
            module=_path(nodes, p),
            kind=kind_of(nodes[p.users[0]]) or "",
            bits=c.bits,
            harm=c.harm,
            cost=c.cost,
            weights=costs.values[p.node],
        )
        for p, c in zip(weights.values(), chosen, strict=True)
    ]


def with_bits(config: QuantizeConfig, layers: Iterable[LayerBits], *, activations: bool) -> QuantizeConfig:
    """The recipe's ``quantize`` with an override for every layer.

    Its grid has the least squared error, as the one that was measured, where the recipe names no other.
    """
    added = []
    for layer in layers:
        scheme = SchemeOverride(bits=layer.bits)
        observer = None if config.for_op(layer.module, layer.kind).w_observer else {"type": _OBSERVER}
        qconfig = QConfig(w_scheme=scheme, a_scheme=scheme if activations else None, w_observer=observer)
        added.append(QConfigOverride(module=layer.module, op=None, qconfig=qconfig))
    return replace(config, overrides=(*config.overrides, *added), mixed_precision=None)


def summary(config: MixedPrecisionConfig, layers: Sequence[LayerBits]) -> str:
    """One line: the budget and what was chosen, the widest layers first."""
    spent = sum(layer.cost for layer in layers)
    spent = spent / sum(layer.weights for layer in layers) if config.budget == "mean_bits" else spent
    order = sorted(layers, key=lambda layer: -layer.bits)
    shown = ", ".join(f"{layer.module} {layer.bits}" for layer in order)
    return f"mixed precision ({config.criterion}): {config.budget} {spent:.6g} of {config.limit:.6g}; bits: {shown}"


def _rounded(captured: CapturedModel, point: QuantPoint, bits: int) -> Tensor:
    node = next(n for n in captured.graph.nodes if n.name == point.node)
    weight: Tensor = attribute(captured.graph_module, str(node.target)).detach()
    scheme = replace(point.scheme, bits=bits)
    # A minimal squared error: at few bits the largest weight must not decide the step.
    observer = build_observer(_OBSERVER, ch_axis=scheme.ch_axis)
    observer.observe(weight)
    return fake_quantize(weight, compute_qparams(*observer.range(scheme), scheme))


def _path(nodes: Mapping[str, fx.Node], point: QuantPoint) -> str:
    return module_path(nodes[point.users[0]]) or point.users[0]


class _Costs:
    """What a width costs, in the unit of the budget's sum."""

    def __init__(
        self,
        captured: CapturedModel,
        plan: QuantPlan,
        config: MixedPrecisionConfig,
        weights: Mapping[str, QuantPoint],
    ) -> None:
        self.config = config
        nodes = {n.name: n for n in captured.graph.nodes}
        self.values = {n: attribute(captured.graph_module, str(nodes[n].target)).numel() for n in weights}
        self.macs = {n: sum(_macs(nodes[u], self.values[n]) for u in p.users) for n, p in weights.items()}
        self.inputs = {n: _input_bits(nodes, plan, p.users[0]) for n, p in weights.items()}
        # A mean is a sum over all weights.
        self.unit = float(sum(self.values.values())) if config.budget == "mean_bits" else 1.0

    def of(self, name: str, bits: int) -> float:
        kind = self.config.budget
        if kind == "mean_bits":
            return float(self.values[name] * bits)
        if kind == "size_bytes":
            return self.values[name] * bits / 8
        if kind == "bops":
            return float(self.macs[name] * bits * (bits if self.config.activations else self.inputs[name]))
        assert self.config.ms_per_gmac is not None
        return self.macs[name] / 1e9 * self.config.ms_per_gmac[bits]


def _macs(node: fx.Node, values: int) -> int:
    """Multiply-accumulates of one sample: every weight once for each position of the output."""
    shape = shape_of(node)
    assert shape is not None
    is_linear = node.target is torch.ops.aten.linear.default
    positions = shape[1:-1] if is_linear else shape[2:]
    return values * math.prod(int(d) for d in positions)


def _input_bits(nodes: Mapping[str, fx.Node], plan: QuantPlan, user: str) -> int:
    """Bits of the grid that an operation reads its input on; 32 where that is in float."""
    grids = {(p.node, reader): p.scheme.bits for p in plan.points if p.kind == "activation" for reader in p.users}
    reader, value = user, nodes[user].args[0]
    while isinstance(value, fx.Node):
        if (value.name, reader) in grids:
            return grids[(value.name, reader)]
        reader, value = value.name, value.args[0] if value.args else None
    return 32
