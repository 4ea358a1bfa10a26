"""Write the simulation as an exported program, and what it costs in bits."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import fx

from razordeploy.backends.base import ExportJob
from razordeploy.capture.graph import CapturedModel, attribute
from razordeploy.quantization.plan import QParams, QuantPoint
from razordeploy.quantization.simulate import simulate


def export(job: ExportJob) -> dict[str, str]:
    """Write ``simulated.pt2``, ``float.pt2`` and ``plan.json``: every layer's bits, grid and size."""
    captured = job.captured
    _save(captured, simulate(captured, job.plan, job.params), job.out_dir / "simulated.pt2")
    _save(job.twin, job.twin.graph_module, job.out_dir / "float.pt2")
    (job.out_dir / "plan.json").write_text(json.dumps(describe(job), indent=1) + "\n")
    return {"engine": "simulated.pt2", "float": "float.pt2", "description": "plan.json"}


def describe(job: ExportJob) -> dict[str, Any]:
    """Inputs, operations, points with scales and zero points, and the weights' size in bits."""
    weights = {n.name: attribute(job.captured.graph_module, str(n.target)) for n in _parameters(job.captured)}
    points = [_point(p, job.params[p.group], weights) for p in job.plan.points]
    stored: dict[str, int] = {}
    for point in points:
        if point["kind"] == "weight":
            stored[point["node"]] = stored.get(point["node"], 0) + point["size_bits"]
    return {
        "inputs": _inputs(job.captured),
        "ops": [{"node": o.node, "kind": o.kind, "module": o.module, "reason": o.reason} for o in job.plan.ops],
        "points": points,
        "weights_size_bits": sum(stored.get(name, _float_bits(w)) for name, w in weights.items()),
        "float_weights_size_bits": sum(map(_float_bits, weights.values())),
    }


def _point(point: QuantPoint, q: QParams, weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    scheme = point.scheme
    size = {"size_bits": weights[point.node].numel() * scheme.bits} if point.kind == "weight" else {}
    return {
        "node": point.node,
        "users": list(point.users),
        "kind": point.kind,
        "bits": scheme.bits,
        "signed": scheme.signed,
        "qmin": scheme.qmin,
        "qmax": scheme.qmax,
        "ch_axis": scheme.ch_axis,
        "scale": q.scale.tolist(),
        "zero_point": q.zero_point.tolist(),
        **size,
    }


def _parameters(captured: CapturedModel) -> list[fx.Node]:
    found = (n for n in captured.graph.nodes if n.op == "get_attr")
    return [n for n in found if isinstance(attribute(captured.graph_module, str(n.target)), torch.Tensor)]


def _float_bits(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size() * 8


def _inputs(captured: CapturedModel) -> list[dict[str, str]]:
    return [
        {"name": str(n.target), "dtype": str(n.meta["val"].dtype).removeprefix("torch.")}
        for n in captured.placeholders()
    ]


def _flat(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy that takes its tensors one by one and returns them in a flat tuple."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(graph_module.graph, {}))
    return fx.GraphModule(graph_module, graph)


def _save(captured: CapturedModel, graph_module: fx.GraphModule, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1)
    sizes = [tuple(n.meta["val"].shape) for n in captured.placeholders()]
    shapes = tuple({0: batch} if size and isinstance(size[0], torch.SymInt) else None for size in sizes)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's remarks about its own internals
        program = torch.export.export(_flat(graph_module), captured.example_inputs, dynamic_shapes=shapes, strict=False)
        torch.export.save(program, path)
