"""What an ONNX file that nobody here has made asks of an engine: which operations are to run in integers."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from razordeploy.capture.onnx_import.graph import node_names
from razordeploy.quantization.plan import PlannedOp

_FROM = {"DequantizeLinear"}
_TO = {"QuantizeLinear"}
_INTEGER = {"ConvInteger", "MatMulInteger", "QGemm"}
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_FUSED = {"Clip", "Elu", "Gelu", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh"}
"""What engines compute inside the operation before it."""
_MOVES = {
    *("Cast", "Constant", "ConstantOfShape", "Dropout", "DynamicQuantizeLinear", "Expand", "Flatten", "Gather"),
    *("Identity", "MaxPool", "Range", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose"),
    *("Unsqueeze", *_FROM, *_TO),
}
"""What computes nothing, or the same in integers and in floats."""


def name_nodes(model: ir.Model) -> None:
    """Give every node a name of its own, by which an engine's graph is read."""
    for node, name in zip(model.graph, node_names(model.graph), strict=True):
        node.name = name


def planned_ops(model: ir.Model, why_float: str | None = None) -> tuple[PlannedOp, ...]:
    """Every operation on floats, or on integers in their place, by the name of its node.

    Planned as int8 is an operation with integer operator types, one with weights whose activations come from
    ``DequantizeLinear``, and any other between ``DequantizeLinear`` and ``QuantizeLinear``.

    Args:
        model: its nodes have names.
        why_float: reason for a file that asks for no integers at all; None: it does.
    """
    model = ShapeInferencePass()(model.clone()).model  # for the element types
    return tuple(_planned(node, why_float) for node in model.graph if not _is_skipped(node))


def _planned(node: ir.Node, why_float: str | None) -> PlannedOp:
    reason = why_float or _why_float(node)
    name = str(node.name)
    return PlannedOp(node=name, kind=node.op_type, module=name, int8=reason is None, reason=reason)


def _why_float(node: ir.Node) -> str | None:
    if node.op_type.startswith("QLinear") or node.op_type in _INTEGER:
        return None
    inputs = [v for v in node.inputs if v is not None and v.const_value is None]
    quantized = [v for v in inputs if _made_by(v, _FROM)]
    if not quantized:
        return "the file has it in float"
    if len(quantized) < len(inputs):
        return "the file quantizes only some of its inputs"
    if node.op_type in _WEIGHTED or all(_is_read_by(v, _TO) for v in node.outputs if v.uses()):
        return None
    return "the file does not quantize its output"


def _made_by(value: ir.Value, kinds: set[str]) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type in kinds


def _is_read_by(value: ir.Value, kinds: set[str]) -> bool:
    return all(
        use.node.op_type in kinds
        or (use.node.op_type in _FUSED and all(_is_read_by(v, kinds) for v in use.node.outputs))
        for use in value.uses()
    )


def _is_skipped(node: ir.Node) -> bool:
    if node.op_type in _MOVES:
        return True
    types = {v.dtype for v in node.outputs if v.dtype is not None}
    if types and not types & {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT8, ir.DataType.UINT8}:
        return not node.op_type.endswith("Integer")
    source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    return node.op_type in _FUSED and source is not None and _why_float(source) is None and source.op_type not in _MOVES
