"""One pass over the calibration data gathers what every backend's grids need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx

from razordeploy.capture.fast import fast, fast_input
from razordeploy.capture.fused import fuse_layers
from razordeploy.capture.graph import CapturedModel, attribute
from razordeploy.errors import DataError
from razordeploy.quantization.observers.base import Observer
from razordeploy.quantization.observers.table import build_observer
from razordeploy.quantization.plan import ObserverSpec, QParams, QuantPlan, QuantPoint
from razordeploy.quantization.qparams import compute_qparams

Key = tuple[str, ObserverSpec]


@dataclass
class Statistics:
    """Observers after calibration, by graph node and estimator."""

    observers: dict[Key, Observer] = field(default_factory=dict)
    samples: int = 0

    def covers(self, plans: Sequence[QuantPlan]) -> bool:
        """Tell whether every activation that ``plans`` quantize was observed."""
        return set(requests(plans)) <= set(self.observers)


def requests(plans: Sequence[QuantPlan]) -> list[Key]:
    """``(node, estimator)`` pairs that must be observed, each once, over all backends."""
    keys = {(p.node, p.observer): None for plan in plans for p in plan.points if p.kind == "activation" and p.observed}
    return list(keys)


def collect(
    captured: CapturedModel,
    plans: Sequence[QuantPlan],
    batches: Iterable[tuple[torch.Tensor, ...]],
    *,
    statistics: Statistics | None = None,
    on_batch: Callable[[Statistics], None] | None = None,
) -> Statistics:
    """Run the float graph over ``batches`` and observe every value that some plan quantizes.

    Args:
        captured: the float graph.
        plans: one per backend.
        batches: input tensors ``(N, ...)`` of one call each, in graph order.
        statistics: of the batches before these, to go on from; None starts anew.
        on_batch: called after every batch with the statistics so far.

    Raises:
        DataError: there is no batch, or a value inside the network is not finite (names the node).
    """
    if statistics is None:
        statistics = Statistics({key: build_observer(key[1].config) for key in requests(plans)})
    watched = _watch(captured, statistics)
    with torch.inference_mode():
        for args in batches:
            watched(*map(fast_input, args))
            statistics.samples += int(args[0].shape[0])
            if on_batch is not None:
                on_batch(statistics)
    if not statistics.samples:
        raise DataError(
            "the calibration data is empty: expected at least one batch", hint="check the calibration source"
        )
    for (node, _), observer in statistics.observers.items():
        if observer.non_finite():
            raise DataError(
                f"calibration produced NaN or Inf at '{node}' inside the network",
                hint="run the float model on the same data: it overflows, or its checkpoint is damaged",
            )
    return statistics


def _watch(captured: CapturedModel, statistics: Statistics) -> fx.GraphModule:
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(captured.graph, copied))
    watched = fx.GraphModule(captured.graph_module, graph)
    by_name = {node.name: copied[node] for node in captured.graph.nodes if node in copied}
    for i, ((name, _), observer) in enumerate(statistics.observers.items()):
        watched.add_submodule(f"_observer_{i}", observer)
        with graph.inserting_after(by_name[name]):
            graph.call_module(f"_observer_{i}", (by_name[name],))
    fuse_layers(watched)
    return fast(watched)


def resolve(captured: CapturedModel, plan: QuantPlan, statistics: Statistics) -> dict[str, QParams]:
    """Turn statistics into the scale and zero point of every group of ``plan``."""
    members: dict[str, list[QuantPoint]] = {}
    for point in plan.points:
        if point.observed:
            members.setdefault(point.group, []).append(point)
    params = {}
    for group, points in members.items():
        ranges = [_range(captured, point, statistics) for point in points]
        low = torch.stack([r[0] for r in ranges]).amin(0)
        high = torch.stack([r[1] for r in ranges]).amax(0)
        params[group] = compute_qparams(low, high, points[0].scheme)
    return params


def _range(captured: CapturedModel, point: QuantPoint, statistics: Statistics) -> tuple[torch.Tensor, torch.Tensor]:
    if point.kind == "activation":
        return statistics.observers[(point.node, point.observer)].range(point.scheme)
    observer = build_observer(point.observer.config, ch_axis=point.scheme.ch_axis)
    node = next(n for n in captured.graph.nodes if n.name == point.node)
    observer.observe(attribute(captured.graph_module, str(node.target)).detach())
    return observer.range(point.scheme)
