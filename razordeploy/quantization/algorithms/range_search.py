"""Choose every tensor's range by what it does to the outputs of the operations that read it.

The estimators of a recipe weigh the tensor's own error; what counts is the error behind the next product. So each
activation's grid is chosen among the ranges of several estimators, and each weight channel's among shrunk ranges (as
OMSE does; Choukroun et al., "Low-bit Quantization of Neural Networks for Efficient Inference", 2019), by the squared
error of the outputs, everything else in float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from razordeploy.errors import RecipeError
from razordeploy.quantization.algorithms.data import Work
from razordeploy.quantization.algorithms.layers import Layer, layer_of
from razordeploy.quantization.algorithms.walk import Walk
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.observers.table import build_observer
from razordeploy.quantization.plan import ObserverSpec, QParams, QuantPlan, QuantPoint
from razordeploy.quantization.qparams import compute_qparams, fake_quantize
from razordeploy.quantization.statistics import collect, resolve

_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4)
_Spec = ObserverSpec
_ESTIMATORS = (
    _Spec(type="MinMaxObserver"),
    _Spec(type="MeanMinMaxObserver"),
    _Spec(type="MSEObserver"),
    _Spec(type="EntropyObserver"),
    _Spec(type="PercentileObserver", options=(("percentile", 99.9),)),
    _Spec(type="PercentileObserver", options=(("percentile", 99.99),)),
)


@dataclass(frozen=True, kw_only=True)
class RangeSearch:
    """Takes, per tensor, the range with the least output error, the present one among the candidates."""

    samples: int = 128
    """Samples that errors are measured on."""
    activations: bool = True
    weights: bool = True
    values: int = 2**21
    """Values of a layer's output, about, that errors are measured on: of larger outputs, fewer samples."""

    def __post_init__(self) -> None:
        for key in ("samples", "values"):
            if getattr(self, key) < 1:
                raise RecipeError(f"RangeSearch: expected {key} of 1 or more, got {getattr(self, key)}")

    def apply(self, draft: Draft, work: Work) -> None:
        """Change the draft's scales and zero points."""
        candidates = self._candidates(draft, work) if self.activations else []
        walk = Walk(draft, work, limit=self.samples, quantized=False)
        errors: dict[str, torch.Tensor] = {}
        points = {(p.node, user): p for p in draft.plan.points for user in p.users}

        def after(node: fx.Node) -> None:
            for source in dict.fromkeys(node.all_input_nodes):
                point = points.get((source.name, node.name))
                if point is None or not isinstance(walk.floats[node][0], torch.Tensor):
                    continue
                if point.kind == "activation" and candidates:
                    grids = [params[point.group] for params in candidates]
                    rows = _rows(walk, layer_of(node), self.values)
                    found = torch.stack([_error(walk, node, source, grid, rows) for grid in grids])
                    errors[point.group] = errors.get(point.group, torch.zeros(len(grids), dtype=torch.float64)) + found
                elif point.kind == "weight" and self.weights:
                    _choose_weight(walk, node, source, point, self.values)

        walk.run(after=after)
        for group, error in errors.items():
            draft.params[group] = candidates[int(error.argmin())][group]

    def _candidates(self, draft: Draft, work: Work) -> list[dict[str, QParams]]:
        """Every estimator's scales; the present ones first."""
        plans = [_with_estimator(draft.plan, spec) for spec in _ESTIMATORS]
        statistics = collect(draft.float_model(), plans, work.batches())
        return [dict(draft.params), *(resolve(draft.captured, plan, statistics) for plan in plans)]


def _with_estimator(plan: QuantPlan, spec: ObserverSpec) -> QuantPlan:
    points = tuple(p if _given(p) else replace(p, observer=spec) for p in plan.points if p.kind == "activation")
    return replace(plan, points=points)


def _given(point: QuantPoint) -> bool:
    """A range that is no estimate stays."""
    return not build_observer(point.observer.config).needs_data


def _error(walk: Walk, node: fx.Node, source: fx.Node, grid: QParams, rows: int | None) -> torch.Tensor:
    """Squared error of an operation's output with one input rounded, relative to the output's power."""
    error = power = 0.0
    for i, expected in enumerate(v[:rows] for v in walk.floats[node]):
        error += _power(_with_input(walk, node, source, grid, i, rows) - expected)
        power += _power(expected)
    return torch.tensor(error, dtype=torch.float64) / max(power, torch.finfo(torch.float64).tiny)


def _power(x: torch.Tensor) -> float:
    found = float(x.square().sum())  # in float64, five times as long
    return found if math.isfinite(found) else float(x.double().square().sum())


def _rows(walk: Walk, layer: Layer | None, values: int) -> int | None:
    """How many of a batch's samples are enough to measure a layer's errors on; None: all.

    A layer treats its rows alike, and large images have as many values as the errors of a channel need.
    """
    value = None if layer is None else walk.floats[layer.node][0]
    if value is None or value.dim() < 2:
        return None
    batches, of_row = len(walk.inputs), max(1, value[0].numel())
    return max(1, values // (of_row * batches))


def _with_input(
    walk: Walk, node: fx.Node, source: fx.Node, grid: QParams, batch: int, rows: int | None = None
) -> torch.Tensor:
    def value(a: fx.Node) -> Any:
        if a.op == "get_attr":
            found = walk.draft.constant(a)
        else:
            found = walk.floats[a][batch]
            found = found if rows is None else found[:rows]
        return fake_quantize(found, grid) if a is source else found

    args, kwargs = fx.map_arg(node.args, value), fx.map_arg(node.kwargs, value)
    result: torch.Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
    return result


@torch.no_grad()
def _choose_weight(walk: Walk, node: fx.Node, source: fx.Node, point: QuantPoint, values: int) -> None:
    layer, draft = layer_of(node), walk.draft
    if layer is None or len(point.users) != 1:
        return
    weight, present = draft.constant(source), draft.params[point.group]
    grids = [present, *_shrunk(layer, weight, point)]
    rows = _rows(walk, layer, values)
    errors = torch.stack([_channel_errors(walk, layer, source, grid, rows) for grid in grids])
    if present.scale.dim() == 0:
        draft.params[point.group] = grids[int(errors.sum(1).argmin())]
        return
    if layer.transposed and layer.groups != 1:  # its scales are of channels that several outputs share
        errors = errors.reshape(len(grids), layer.groups, -1).sum(1)
    best = errors.argmin(0)
    channels = torch.arange(len(best))
    draft.params[point.group] = QParams(
        scale=torch.stack([g.scale for g in grids])[best, channels],
        zero_point=torch.stack([g.zero_point for g in grids])[best, channels],
        scheme=present.scheme,
    )


def _shrunk(layer: Layer, weight: torch.Tensor, point: QuantPoint) -> list[QParams]:
    observer = build_observer("MinMaxObserver", ch_axis=point.scheme.ch_axis)
    observer.observe(weight)
    low, high = observer.range(point.scheme)
    return [compute_qparams(low * r, high * r, point.scheme) for r in _RATIOS]


def _channel_errors(walk: Walk, layer: Layer, source: fx.Node, grid: QParams, rows: int | None) -> torch.Tensor:
    """Squared error of every output channel, ``(out,)``."""
    total = torch.zeros((), dtype=torch.float64)
    for i, expected in enumerate(v[:rows] for v in walk.floats[layer.node]):
        error = _with_input(walk, layer.node, source, grid, i, rows) - expected
        others = [d for d in range(error.dim()) if d != layer.channel_axis % error.dim()]
        square = error.square().sum(others)
        total = total + (square.double() if bool(square.isfinite().all()) else error.double().square().sum(others))
    return total
