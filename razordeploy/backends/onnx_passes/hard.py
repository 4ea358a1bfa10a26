"""Hard-sigmoid and hard-swish between pairs, in forms that ONNX Runtime has integer kernels for.

It has none for the functions themselves, but both are piecewise linear: on the right grid their integers are those of
the value before them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from razordeploy.backends.onnx_passes.values import constant

_SHIFT, _WIDTH = 3.0, 6.0
"""``hard_sigmoid(x) = clip(x + 3, 0, 6) / 6``."""
_CLOSE = 1e-5


def hard_sigmoid_of_layers(model: ir.Model) -> None:
    """Let a layer whose hard-sigmoid is quantized write those integers itself, in place.

    ``Q(hard_sigmoid(y), s)`` has the integers of ``Q(y + 3, 6 s)``, clipped where the grid goes beyond [0, 1]; the
    shift is the layer's bias.
    """
    for node in list(model.graph):
        layer = node.inputs[0].producer() if node.op_type == "HardSigmoid" and node.inputs[0] is not None else None
        pairs = _quantizers(node)
        if layer is None or layer.op_type not in {"Conv", "Gemm"} or len(list(layer.outputs[0].uses())) != 1:
            continue
        bias = layer.inputs[2] if len(layer.inputs) > 2 else None
        if (
            not _is_sigmoid(node)
            or not pairs
            or not _channels(layer)
            or (bias is not None and bias.const_value is None)
        ):
            continue
        _shift(model.graph, layer, bias)
        for pair in pairs:
            scale, zero = _grid(pair)
            wide = constant(model.graph, f"{pair.name}.wide", np.float32(_WIDTH * scale))
            pair.replace_input_with(0, layer.outputs[0])
            pair.replace_input_with(1, wide)
            _clip(model.graph, pair, int(zero), int(zero) + round(1 / float(scale)))
        model.graph.remove(node, safe=True)


def hard_swish_of_integers(model: ir.Model) -> None:
    """Write ``Q(hard_swish(DQ(q, s, z)))`` as a product of ``q`` with itself, in place.

    Where 3 is a whole number k of steps s, ``hard_sigmoid`` of the value is ``clip(q, z - k, z + k)`` on the grid of
    scale s / 6 and zero point z - k.
    """
    for node in list(model.graph):
        source = node.inputs[0].producer() if node.op_type == "HardSwish" and node.inputs[0] is not None else None
        if source is None or source.op_type != "DequantizeLinear" or not _quantizers(node):
            continue
        scale, zero = _grid(source)
        steps, limits = round(_SHIFT / float(scale)), np.iinfo(zero.dtype)
        low, high = int(zero) - steps, int(zero) + steps
        if abs(steps * float(scale) - _SHIFT) > _CLOSE or low < limits.min:
            continue
        _product(model.graph, node, source, low, min(high, int(limits.max)))


def _product(graph: ir.Graph, node: ir.Node, source: ir.Node, low: int, high: int) -> None:
    name = str(node.name).partition(".HardSwish.")[0]
    x, out = node.inputs[0], node.outputs[0]
    scale, zero = _grid(source)
    integers = source.inputs[0]
    assert x is not None and integers is not None
    limits = np.iinfo(zero.dtype)
    gate = integers
    if (low, high) != (limits.min, limits.max):
        ends = [constant(graph, f"{name}.gate.{k}", zero.dtype.type(v)) for k, v in (("low", low), ("high", high))]
        clip = ir.node("Clip", [integers, *ends], name=f"{name}.gate")
        graph.insert_before(node, clip)
        gate = _described(clip, integers)
    grid = [
        constant(graph, f"{name}.gate.scale", np.float32(float(scale) / _WIDTH)),
        constant(graph, f"{name}.gate.zero_point", zero.dtype.type(low)),
    ]
    pair = ir.node("DequantizeLinear", [gate, *grid], name=f"{name}.gate.dequantize")
    product = ir.node("Mul", [x, _described(pair, x)], name=name)
    product.metadata_props.update(node.metadata_props)
    graph.insert_before(node, [pair, product])
    made = _described(product, out)
    ir.convenience.replace_all_uses_with(out, made)
    graph.remove(node, safe=True)


def _clip(graph: ir.Graph, pair: ir.Node, low: int, high: int) -> None:
    """Clip the integers that ``pair`` writes, where its type goes beyond."""
    _, zero = _grid(pair)
    limits = np.iinfo(zero.dtype)
    if low <= limits.min and high >= limits.max:
        return
    ends = [
        constant(graph, f"{pair.name}.{k}", zero.dtype.type(np.clip(v, limits.min, limits.max)))
        for k, v in (("low", low), ("high", high))
    ]
    out = pair.outputs[0]
    clip = ir.node("Clip", [out, *ends], name=f"{pair.name}.clip")
    made = _described(clip, out)
    ir.convenience.replace_all_uses_with(out, made)
    clip.replace_input_with(0, out)
    graph.insert_after(pair, clip)


def _shift(graph: ir.Graph, layer: ir.Node, bias: ir.Value | None) -> None:
    """Add 3 to what ``layer`` writes."""
    tensor = bias.const_value if bias is not None else None
    values = np.zeros(_channels(layer), np.float32) if tensor is None else tensor.numpy()
    layer.resize_inputs(3)
    layer.replace_input_with(2, constant(graph, f"{layer.name}.shifted_bias", (values + _SHIFT).astype(np.float32)))


def _channels(layer: ir.Node) -> int:
    """Output channels of a Conv or Gemm, by its weight; 0 where that has no known shape."""
    weight = layer.inputs[1]
    axis = 1 if layer.op_type == "Gemm" and not layer.attributes.get_int("transB", 0) else 0
    size = weight.shape[axis] if weight is not None and weight.shape is not None else 0
    return size if isinstance(size, int) else 0


def _quantizers(node: ir.Node) -> list[ir.Node]:
    """The QuantizeLinear nodes that read ``node``'s value, each with one scale; none where anything else reads it."""
    out = node.outputs[0]
    users = [use.node for use in out.uses()]
    fit = all(u.op_type == "QuantizeLinear" and len(u.inputs) > 2 and not _grid(u)[0].ndim for u in users)
    return users if fit and not out.is_graph_output() else []


def _is_sigmoid(node: ir.Node) -> bool:
    found = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    return bool(np.allclose(found, (1 / _WIDTH, _SHIFT / _WIDTH), rtol=1e-4))


def _grid(pair: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear."""
    scale, zero = (v.const_value if v is not None else None for v in pair.inputs[1:3])
    assert scale is not None and zero is not None
    return scale.numpy(), zero.numpy()


def _described(node: ir.Node, like: ir.Value) -> ir.Value:
    """The output of ``node``, named after it, of the shape and type of ``like``."""
    out = node.outputs[0]
    out.name, out.shape, out.type = node.name, like.shape, like.type
    return out
