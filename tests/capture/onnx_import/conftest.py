"""Small ONNX files, written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="writes ONNX files")
pytest.importorskip("onnxruntime", reason="is what imports are held against")

INPUT, FLOAT, INT64 = "x", onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def node(kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> Any:
    """One node, called as its type in small letters unless ``name`` is given."""
    name = attributes.pop("name", kind.lower())
    return onnx.helper.make_node(kind, list(inputs), [output or f"{name}_out"], name=name, **attributes)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Normally distributed float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(
    path: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    outputs: Sequence[str] | None = None,
    opset: int = 17,
    types: Mapping[str, int] | None = None,
    **save: Any,
) -> Path:
    """Write a model; outputs are those of the last node unless given, a string in a shape is an open size."""
    used = {name for made in nodes for name in made.input}
    domains = {made.domain for made in nodes}
    made = onnx.helper.make_graph(
        list(nodes),
        "graph",
        [onnx.helper.make_tensor_value_info(n, (types or {}).get(n, FLOAT), s) for n, s in inputs.items()],
        [onnx.helper.make_empty_tensor_value_info(name) for name in outputs or nodes[-1].output],
        [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items() if n in used],
    )
    versions = [onnx.helper.make_opsetid(domain, 1 if domain else opset) for domain in {"", *domains}]
    model = onnx.helper.make_model(made, opset_imports=versions, ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    for value in model.graph.output:
        if not value.type.tensor_type.elem_type:
            value.type.tensor_type.elem_type = FLOAT
    onnx.save(model, path, **save)
    return path
