"""Factors of channels that are negative."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from razordeploy.backends.onnx_passes.values import constant

_NORMS = {"BatchNormalization", "GroupNormalization"}
_SCALE, _BIAS = 1, 2
_SHARE = 1e-4
"""Of a step of the grid: it decides hardly any rounding, and is not lost in a sum with a zero point."""


def negative_factors_apart(model: ir.Model) -> None:
    """Shift what is quantized behind a product with a vector that has negative entries by next to nothing, in place.

    OpenVINO makes one FakeQuantize of the two, which is wrong where factors are negative and all shifts are equal.
    """
    for node in list(model.graph):
        if node.op_type in _NORMS:
            factors = _numbers(node.inputs[_SCALE])
        elif node.op_type in {"Mul", "Div"}:
            factors = next((v for v in map(_numbers, node.inputs) if v is not None), None)
        else:
            continue
        if factors is None or factors.size == 1 or (factors >= 0).all():
            continue
        step = min(_steps(node, set()), default=None)
        if step is None:
            continue
        shift = (_SHARE * step * (1 + np.arange(factors.size) % 2)).reshape(factors.shape).astype(np.float32)
        if node.op_type in _NORMS:
            _shift_bias(model.graph, node, shift)
        else:
            _add(model.graph, node, shift)


def _numbers(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """What a constant holds, also behind a cast to the type that it has."""
    producer = value.producer() if value is not None else None
    while producer is not None and producer.op_type == "CastLike":
        value = producer.inputs[0]
        producer = value.producer() if value is not None else None
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _steps(node: ir.Node, seen: set[ir.Node]) -> Iterator[np.float32]:
    """Steps of the grids right behind ``node`` and what lies between."""
    for use in node.outputs[0].uses():
        if use.node in seen:
            continue
        seen.add(use.node)
        scale = use.node.inputs[1].const_value if use.node.op_type == "QuantizeLinear" and use.node.inputs[1] else None
        if scale is not None:
            yield np.float32(scale.numpy().min())
        elif use.node.op_type not in {"Conv", "MatMul", "Gemm"}:
            yield from _steps(use.node, seen)


def _shift_bias(graph: ir.Graph, norm: ir.Node, shift: np.ndarray[Any, Any]) -> None:
    numbers = _numbers(norm.inputs[_BIAS])
    if numbers is not None:
        norm.replace_input_with(_BIAS, constant(graph, f"{norm.name}.bias", numbers + shift))


def _add(graph: ir.Graph, product: ir.Node, shift: np.ndarray[Any, Any]) -> None:
    out = product.outputs[0]
    total = ir.node("Add", [out, constant(graph, f"{product.name}.shift", shift)], name=f"{product.name}.sum")
    made = total.outputs[0]
    made.shape, made.type = out.shape, out.type
    if out.is_graph_output():
        graph.outputs[list(graph.outputs).index(out)] = made
        made.name, out.name = out.name, f"{out.name}.product"
    else:
        made.name = f"{out.name}.sum"
    ir.convenience.replace_all_uses_with(out, made)
    total.replace_input_with(0, out)
    graph.insert_after(product, total)
