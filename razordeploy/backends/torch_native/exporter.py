"""Write a quantized graph and its float twin as AOTInductor packages."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import torch
from torch import fx

from razordeploy.backends.base import ExportJob
from razordeploy.backends.torch_native.compiler import compile_package
from razordeploy.backends.torch_native.qdq import float_graph, quantized_graph
from razordeploy.backends.torch_native.runtime_graph import GraphReader, check_calls
from razordeploy.capture.graph import CapturedModel

RUNTIME_GRAPH = "runtime_graph.json"


def export(job: ExportJob) -> dict[str, str]:
    """Write ``model.pt2`` (int8), ``float.pt2`` and ``runtime_graph.json``: inputs, and the operations of both."""
    quantized = quantized_graph(job.captured, job.plan, job.params)
    graphs = {"engine": ("model.pt2", quantized)}
    if job.with_twin:
        graphs["float"] = ("float.pt2", float_graph(job.twin))
    written: dict[str, Any] = {"inputs": _inputs(job.captured)}
    for role, (file, module) in graphs.items():
        written[role] = _compile(job, module, file)
    (job.out_dir / RUNTIME_GRAPH).write_text(json.dumps(written, indent=1) + "\n")
    return {**{role: file for role, (file, _) in graphs.items()}, "runtime_graph": RUNTIME_GRAPH}


def _compile(job: ExportJob, module: fx.GraphModule, file: str) -> list[dict[str, Any]]:
    captured = job.captured
    dynamic = tuple(entry["shape"][:1] == [None] for entry in _inputs(captured))
    reader = GraphReader(captured)
    compile_package(module, captured.example_inputs, dynamic, job.out_dir / file, reader)
    check_calls(job.out_dir / file, reader.ops)
    return [dataclasses.asdict(op) for op in reader.ops]


def _inputs(captured: CapturedModel) -> list[dict[str, Any]]:
    """Name, dtype and shape of every tensor input; a size that may vary is None."""
    described = []
    for node in captured.placeholders():
        value: torch.Tensor = node.meta["val"]
        shape = [size if isinstance(size, int) else None for size in value.shape]
        described.append({"name": str(node.target), "dtype": str(value.dtype).removeprefix("torch."), "shape": shape})
    return described
