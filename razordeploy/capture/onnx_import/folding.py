"""Compute, before the graph is a module, what depends on constants and on sizes that never change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from razordeploy.capture.onnx_import.evaluate import run
from razordeploy.capture.onnx_import.graph import OnnxGraph, OnnxNode, pruned
from razordeploy.capture.onnx_import.op import Known, Value
from razordeploy.errors import ModelError

_BATCHES = (2, 3, 5)
"""What is the same for these batches is the same for any: no exporter writes a size that only differs later."""


def fold(graph: OnnxGraph) -> OnnxGraph:
    """Return the graph without the nodes whose outputs are constant, shapes of a fixed size among them."""
    graph = _fold_constants(graph)
    fixed = _fixed_values(graph)
    return _fold_constants(_without(graph, fixed)) if fixed else graph


def _fold_constants(graph: OnnxGraph) -> OnnxGraph:
    known = dict(graph.constants)
    left: list[OnnxNode] = []
    for node in graph.nodes:
        if not all(name in known or not name for name in node.inputs):
            left.append(node)
            continue
        inputs = tuple(_constant(known[name]) if name else None for name in node.inputs)
        with torch.no_grad():
            found = run(node.op, inputs)
        for name, value in zip(node.outputs, found, strict=False):
            known[name] = value.array if isinstance(value, Known) else value.numpy()
    return pruned(replace(graph, nodes=tuple(left), constants=known))


def _constant(array: np.ndarray) -> Known:
    return Known(array, torch.from_numpy(array if array.flags.writeable else array.copy()))


def _fixed_values(graph: OnnxGraph) -> dict[str, np.ndarray]:
    """Shapes, and what is computed from them, that do not depend on the batch.

    The graph is run without computing anything for a few batch sizes. A graph with other open sizes is left alone.
    """
    open_axes = {i for spec in graph.inputs for i, size in enumerate(spec.shape) if size is None}
    if not open_axes <= {0}:
        return {}
    try:
        first, *others = (_known_values(graph, batch) for batch in (_BATCHES if open_axes else (1,)))
    except ModelError:
        return {}  # a batch that is baked in: the run on the example tells more
    return {
        name: array
        for name, array in first.items()
        if all(name in found and np.array_equal(array, found[name]) for found in others)
    }


def _known_values(graph: OnnxGraph, batch: int) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        values: dict[str, Value] = {name: _constant(array) for name, array in graph.constants.items()}
        for spec in graph.inputs:
            sizes = [batch if size is None else size for size in spec.shape]
            values[spec.name] = torch.empty(sizes, dtype=torch.from_numpy(np.empty(0, spec.dtype)).dtype)
        for node in graph.nodes:
            inputs = tuple(values[name] if name else None for name in node.inputs)
            for name, value in zip(node.outputs, run(node.op, inputs), strict=False):
                values[name] = value
                if isinstance(value, Known):
                    found[name] = value.array
    return found


def _without(graph: OnnxGraph, fixed: dict[str, np.ndarray]) -> OnnxGraph:
    nodes = tuple(n for n in graph.nodes if not all(name in fixed for name in n.outputs if name))
    return replace(graph, nodes=nodes, constants={**graph.constants, **fixed})
