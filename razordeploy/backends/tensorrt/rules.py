"""Hold an exported graph against TensorRT's rules for explicit quantization, node by node.

An *error* is refused by the parser, or computes something else than the simulation; a *note* costs speed.
Sources: TensorRT's "Working with Quantized Types" and its Q/DQ placement recommendations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from razordeploy.backends.tensorrt.spec import SPEC

_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_CONVOLUTIONS = {"Conv", "ConvTranspose"}
_FUSED = {
    *("BatchNormalization", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu"),
    *("Sigmoid", "Tanh"),
}
"""What runs inside the kernel of the convolution before it."""
_MOVES = {
    *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Resize"),
    *("Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
}
_READERS = {*_WEIGHTED, *_MOVES, "Add", "AveragePool", "GlobalAveragePool", "Mul", "QuantizeLinear"}
"""Operations that have an int8 kernel, or let a pair pass."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One node that breaks one rule."""

    node: str
    rule: str
    """Name of the rule: grid, weight, input, between, residual, concat, reader, size, operator."""
    message: str
    severity: Literal["error", "note"] = "error"


def check(model: ir.Model) -> list[Finding]:
    """Run every rule over every node of ``model``, in the order of the table below."""
    return [finding for node in model.graph for rule in _RULES for finding in rule(node)]


def check_file(path: str) -> list[Finding]:
    """The same for a file."""
    return check(ir.load(path))


def _grid(node: ir.Node) -> Iterator[Finding]:
    """Signed 8 bits, zero point 0, finite positive scales."""
    if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        return
    zero = _constant(node.inputs[2]) if len(node.inputs) > 2 else None
    kind = _integers(node)
    if kind != ir.DataType.INT8:
        yield _error(node, "grid", f"expected int8, got {'uint8' if kind is None else kind.name.lower()}")
    if zero is not None and zero.any():
        yield _error(node, "grid", f"expected zero point 0, got {int(zero[zero != 0].flat[0])}")
    scale = _constant(node.inputs[1])
    if scale is None:
        yield _error(node, "grid", "its scale is not a constant")
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        yield _error(node, "grid", "its scale is not a positive number")
    elif scale.size > 1 and not _is_constant(node.inputs[0]) and node.op_type == "QuantizeLinear":
        yield _error(node, "grid", f"an activation has {scale.size} scales, TensorRT takes one")


def _weight(node: ir.Node) -> Iterator[Finding]:
    """What reads integers has integer weights, in [-127, 127] and with a scale per output channel or one."""
    if node.op_type not in _WEIGHTED or not _dequantized(node.inputs[0]):
        return
    source, turned = _through_transpose(node.inputs[1])
    pair = source.producer() if source is not None else None
    if pair is None or pair.op_type != "DequantizeLinear":
        if _is_constant(source):
            yield _error(node, "weight", "its input is quantized, its weight is not")
        return
    values, scale = _constant(pair.inputs[0]), _constant(pair.inputs[1])
    if values is None:
        return  # a product of two activations
    if values.dtype == np.int8 and values.size and values.min() < -127:
        yield _error(node, "weight", "the integer -128 in a weight: expected [-127, 127]")
    if scale is not None and scale.size > 1:
        axis = pair.attributes.get_int("axis", 1) % values.ndim
        wanted = _output_axis(node, values.ndim, turned)
        if axis != wanted:
            yield _error(node, "weight", f"scales along axis {axis} of the weight: expected output channels, {wanted}")


def _input(node: ir.Node) -> Iterator[Finding]:
    """What has integer weights reads integers."""
    if node.op_type not in _WEIGHTED or _dequantized(node.inputs[0]) or len(node.inputs) < 2:
        return
    source, _ = _through_transpose(node.inputs[1])
    if _dequantized(source) and source is not None and _is_constant(_pair(source).inputs[0]):
        yield _error(node, "input", "its weight is quantized, its input is not: the layer would run in float")


def _between(node: ir.Node) -> Iterator[Finding]:
    """No pair between a convolution, its batch norm and its activation: they run in one kernel."""
    if node.op_type not in _CONVOLUTIONS and node.op_type != "BatchNormalization":
        return
    for quantize in _users(node.outputs[0], "QuantizeLinear"):
        readers = [r for d in _users(quantize.outputs[0], "DequantizeLinear") for r in _users(d.outputs[0])]
        for reader in readers:
            if reader.op_type in _FUSED:
                yield _error(quantize, "between", f"a pair between {node.name} and the {reader.op_type} of its kernel")


def _residual(node: ir.Node) -> Iterator[Finding]:
    """Of a sum after a convolution only the shortcut is quantized: the convolution's kernel adds it."""
    if node.op_type != "Add" or len(node.inputs) != 2 or any(_is_constant(v) for v in node.inputs):
        return
    pairs = [v for v in node.inputs if v is not None and _dequantized(v)]
    if len(pairs) == 2:
        own = [v for v in pairs if _is_own_convolution(v, node)]
        if own:
            yield _error(node, "residual", f"pairs on both inputs: {_source(own[0])} takes none")
        return
    plain = [v for v in node.inputs if v is not None and not _dequantized(v)]
    if len(plain) == 2 and _is_quantized_later(node.outputs[0]) and any(_is_int8_convolution(v) for v in plain):
        yield _note(node, "residual", "the shortcut is not quantized: the fused kernel gives floats")
    elif len(pairs) == 1 and not any(_is_int8_convolution(v) for v in plain):
        yield _note(node, "residual", "only one input is quantized, and no convolution's kernel adds it")


def _concat(node: ir.Node) -> Iterator[Finding]:
    """All parts of a concatenation lie on one grid: another one costs a kernel that rounds anew."""
    if node.op_type != "Concat":
        return
    scales = [_scale(_pair(v)) for v in node.inputs if v is not None and _dequantized(v)]
    out = [_scale(q) for q in _users(node.outputs[0], "QuantizeLinear")]
    beside = [_scale(q) for v in node.inputs if v is not None for q in _users(v, "QuantizeLinear") if out]
    if len({*scales, *out, *beside} - {None}) > 1:
        yield _note(node, "concat", "its parts lie on different grids")


def _reader(node: ir.Node) -> Iterator[Finding]:
    """A pair serves somebody who computes in integers."""
    if node.op_type != "DequantizeLinear" or _is_constant(node.inputs[0]):
        return
    readers = _users(node.outputs[0])
    if node.outputs[0].is_graph_output():
        yield _note(node, "reader", "a pair on an output of the model")
    elif not any(r.op_type in _READERS for r in readers):
        names = ", ".join(sorted({r.op_type for r in readers})) or "nobody"
        yield _note(node, "reader", f"a pair that only {names} reads, which computes in float")


def _size(node: ir.Node) -> Iterator[Finding]:
    """Layers too small for the integer units."""
    if node.op_type not in {"Gemm", "MatMul"} or not _dequantized(node.inputs[0]):
        return
    source, _ = _through_transpose(node.inputs[1])
    values = _constant(_pair(source).inputs[0]) if source is not None and _dequantized(source) else None
    if values is not None and values.ndim == 2 and min(values.shape) < SPEC.min_channels:
        yield _note(node, "size", f"a product with a side of {min(values.shape)}, fewer than {SPEC.min_channels}")


def _operator(node: ir.Node) -> Iterator[Finding]:
    """Operators of ONNX itself only."""
    if node.domain not in {"", "ai.onnx"}:
        yield _error(node, "operator", f"{node.domain}.{node.op_type} is not an ONNX operator")


_RULES: list[Callable[[ir.Node], Iterator[Finding]]] = [
    *(_grid, _weight, _input, _between, _residual, _concat, _reader, _size, _operator)
]


def _error(node: ir.Node, rule: str, message: str) -> Finding:
    return Finding(node=str(node.name), rule=rule, message=message)


def _note(node: ir.Node, rule: str, message: str) -> Finding:
    return Finding(node=str(node.name), rule=rule, message=message, severity="note")


def _constant(value: ir.Value | None) -> np.ndarray | None:
    tensor = value.const_value if value is not None else None
    return None if tensor is None else tensor.numpy()


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None


def _integers(node: ir.Node) -> ir.DataType | None:
    """Type of the integers that a Q gives or a DQ takes; None: uint8 by default."""
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    known = zero if zero is not None else (node.inputs[0] if node.op_type == "DequantizeLinear" else None)
    return known.dtype if known is not None else None


def _dequantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def _pair(value: ir.Value) -> ir.Node:
    producer = value.producer()
    assert producer is not None
    return producer


def _scale(node: ir.Node) -> bytes | None:
    scale = _constant(node.inputs[1])
    return None if scale is None else scale.astype(np.float32).tobytes()


def _users(value: ir.Value, op_type: str | None = None) -> list[ir.Node]:
    return [use.node for use in value.uses() if op_type is None or use.node.op_type == op_type]


def _through_transpose(value: ir.Value | None) -> tuple[ir.Value | None, bool]:
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Transpose":
        return producer.inputs[0], True
    return value, False


def _output_axis(node: ir.Node, rank: int, turned: bool) -> int:
    """Axis of the stored weight that indexes output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    rows = turned or node.attributes.get_int("transB", 0) == 1
    return rank - 2 if rows else rank - 1


def _source(value: ir.Value) -> str:
    """Name of the node whose result a pair quantizes."""
    quantize = _pair(value).inputs[0]
    before = quantize.producer() if quantize is not None else None
    maker = before.inputs[0].producer() if before is not None and before.inputs[0] is not None else None
    return str(maker.name) if maker is not None else ""


def _is_own_convolution(value: ir.Value, add: ir.Node) -> bool:
    """Tell whether the pair stands on a convolution (with its batch norm) whose result only ``add`` reads."""
    integers = _pair(value).inputs[0]
    quantize = integers.producer() if integers is not None else None
    if quantize is None or quantize.op_type != "QuantizeLinear" or quantize.inputs[0] is None:
        return False
    made, readers = quantize.inputs[0], _users(value)
    return readers == [add] and len(_users(made)) == 1 and _is_int8_convolution(made)


def _is_int8_convolution(value: ir.Value) -> bool:
    node = value.producer()
    if node is not None and node.op_type == "BatchNormalization" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type in _CONVOLUTIONS and _dequantized(node.inputs[0])


def _is_quantized_later(value: ir.Value) -> bool:
    return any(
        user.op_type == "QuantizeLinear" or (user.op_type in _FUSED and _is_quantized_later(user.outputs[0]))
        for user in _users(value)
    )
