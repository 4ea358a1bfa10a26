"""Write the graph in the forms that OpenVINO's CPU plugin fuses."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from razordeploy.backends.onnx_passes.factors import negative_factors_apart
from razordeploy.backends.onnx_passes.rows import linear_on_rows
from razordeploy.backends.onnx_passes.simplify import two_slices
from razordeploy.backends.onnx_passes.values import constant
from razordeploy.backends.openvino.engine import PRODUCT


def rewrite(model: ir.Model) -> None:
    """Change a graph with pairs, in place."""
    written_out_hard_sigmoid(model)
    linear_on_rows(model, rank=3, gemm=False)
    _strides_as_pooling(model)
    _rolls_as_gathers(model)
    _maxima_as_pooling(model)
    _shifted_averages_as_convolutions(model)
    _norms_as_convolutions(model)
    _integers_first(model)
    _name_scaled_products(model)
    negative_factors_apart(model)
    _concatenations_apart(model)


def written_out_hard_sigmoid(model: ir.Model) -> None:
    """``clip(x + 3, 0, 6) / 6`` runs inside the kernel before it; HardSigmoid is an operation of its own."""
    for node in list(model.graph):
        if node.op_type != "HardSigmoid":
            continue
        alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
        if not (math.isclose(alpha, 1 / 6, rel_tol=1e-3) and math.isclose(beta, 0.5)):
            continue
        value, out = node.inputs[0], node.outputs[0]
        assert value is not None
        for op_type, numbers in (("Add", (3.0,)), ("Clip", (0.0, 6.0)), ("Div", (6.0,))):
            constants = [_number(model.graph, f"{out.name}.{op_type}.{i}", n) for i, n in enumerate(numbers)]
            step = ir.node(op_type, [value, *constants], name=f"{node.name}.{op_type}")
            model.graph.insert_before(node, step)
            value = step.outputs[0]
            value.name, value.shape, value.type = f"{out.name}.{op_type}", out.shape, out.type
        _replace_output(model, out, value)
        model.graph.remove(node, safe=True)


def _integers_first(model: ir.Model) -> None:
    """A product computes in the type of its first operand: let that not be one whose kernel writes floats.

    A convolution or linear layer does where the product alone reads it; where others do too it writes integers, and a
    gate beside it may be floats.
    """
    for node in model.graph:
        if node.op_type == "Mul" and _written_as(node.inputs[0]) < _written_as(node.inputs[1]):
            first, second = node.inputs
            node.replace_input_with(0, second)
            node.replace_input_with(1, first)


def _strides_as_pooling(model: ir.Model) -> None:
    """Where strided 1x1 convolutions alone read a value, OpenVINO moves their stride into the layers before.

    It does so by a pooling between the two halves of a pair, which its int8 kernels do not know, and the convolutions
    run in float. With the pooling behind the pair, and the stride taken off, they run in int8.
    """
    for pair in [node for node in model.graph if node.op_type == "DequantizeLinear"]:
        out = pair.outputs[0]
        readers = [use.node for use in out.uses()]
        strides = {_pointwise_strides(node, out) for node in readers}
        if len(strides) != 1 or out.is_graph_output():
            continue
        (stride,) = strides
        if stride is None or max(stride) == 1:
            continue
        pool = ir.node(
            "MaxPool", [out], {"kernel_shape": [1] * len(stride), "strides": list(stride)}, name=f"{out.name}.strided"
        )
        model.graph.insert_after(pair, pool)
        taken = pool.outputs[0]
        taken.name, taken.type = f"{out.name}.strided", out.type
        for node in readers:
            node.replace_input_with(0, taken)
            node.attributes["strides"] = ir.AttrInt64s("strides", [1] * len(stride))


def _pointwise_strides(node: ir.Node, value: ir.Value) -> tuple[int, ...] | None:
    """Strides of a 1x1 convolution of ``value`` without padding; None for anything else."""
    if node.op_type != "Conv" or node.inputs[0] is not value:
        return None
    kernel, pads = node.attributes.get_ints("kernel_shape", ()), node.attributes.get_ints("pads", ())
    if not kernel or max(kernel) > 1 or any(pads):
        return None
    return tuple(node.attributes.get_ints("strides", [1] * len(kernel)))


def _maxima_as_pooling(model: ir.Model) -> None:
    """A maximum is pooled, and a minimum is that of the negative: OpenVINO's reductions to integers are wrong."""
    for node in list(model.graph):
        found = _reduced(node) if node.op_type in {"ReduceMax", "ReduceMin"} else None
        if found is None:
            continue
        source, before, size, behind = found
        out = node.outputs[0]
        assert out.shape is not None
        value = _reshaped(model, node, source, f"{out.name}.rows", [0, before, size, behind])
        steps = ["MaxPool"] if node.op_type == "ReduceMax" else ["Neg", "MaxPool", "Neg"]
        for index, op_type in enumerate(steps):
            options = {"kernel_shape": [size, 1], "strides": [1, 1]} if op_type == "MaxPool" else {}
            step = ir.node(
                op_type, [value], options, name=node.name if index == len(steps) - 1 else f"{out.name}.{index}"
            )
            model.graph.insert_before(node, step)
            value = step.outputs[0]
            value.name, value.type = f"{out.name}.{op_type}.{index}", out.type
        shape = [0, *(int(d) for d in list(out.shape)[1:] if isinstance(d, int))]
        _replace_output(model, out, _reshaped(model, node, value, f"{out.name}.reshaped", shape))
        model.graph.remove(node, safe=True)


def _shifted_averages_as_convolutions(model: ir.Model) -> None:
    """A padded average pool of integers with a zero point is a convolution of floats.

    OpenVINO pools such integers wherever it finds them, planned or not, and pads with the integer 0.
    """
    for pool in list(model.graph):
        source = pool.inputs[0] if pool.op_type == "AveragePool" else None
        if source is None or not any(pool.attributes.get_ints("pads", ())) or not _is_shifted(source):
            continue
        kernel, shape = list(pool.attributes.get_ints("kernel_shape", ())), pool.outputs[0].shape
        channels = shape[1] if shape is not None else None
        if not pool.attributes.get_int("count_include_pad", 0) or not isinstance(channels, int):
            continue
        weights = np.full((channels, 1, *kernel), 1 / math.prod(kernel), np.float32)
        pool.attributes.pop("count_include_pad")
        pool.attributes.pop("ceil_mode", None)
        options = {**pool.attributes, "group": ir.AttrInt64("group", channels)}
        weight = constant(model.graph, f"{pool.outputs[0].name}.weight", weights)
        conv = ir.Node("", "Conv", [source, weight], list(options.values()), name=pool.name)
        model.graph.insert_before(pool, conv)
        conv.outputs[0].shape, conv.outputs[0].type = pool.outputs[0].shape, pool.outputs[0].type
        _replace_output(model, pool.outputs[0], conv.outputs[0])
        model.graph.remove(pool, safe=True)


def _is_shifted(value: ir.Value) -> bool:
    """Tell whether ``value``, or what it is a part of, comes from a pair with a zero point other than 0."""
    maker = value.producer()
    while maker is not None and maker.op_type in {"Split", "Slice"}:
        maker = maker.inputs[0].producer() if maker.inputs[0] is not None else None
    if maker is None or maker.op_type != "DequantizeLinear" or len(maker.inputs) < 3 or maker.inputs[2] is None:
        return False
    zero = ir.convenience.get_const_tensor(maker.inputs[2])
    return zero is not None and bool(zero.numpy().any())


def _norms_as_convolutions(model: ir.Model) -> None:
    """A batch norm whose channels become part of the batch, without a pair between, is a depthwise convolution.

    OpenVINO takes its scale and shift for the dequantization of the layer before, and moves them behind the reshape
    with as many numbers as there are channels then: wrong ones, and where these are no multiple it gives up.
    """
    for norm in [node for node in model.graph if node.op_type == "BatchNormalization"]:
        out = norm.outputs[0]
        vectors = [ir.convenience.get_const_tensor(v) if v is not None else None for v in norm.inputs[1:5]]
        known = [v.numpy().astype(np.float64) for v in vectors if v is not None]
        if out.shape is None or len(out.shape) < 3 or len(known) != len(vectors) or not _enters_batch(out, out):
            continue
        scale, shift, mean, var = known
        factor = scale / np.sqrt(var + norm.attributes.get_float("epsilon", 1e-5))
        weight = factor.astype(np.float32).reshape(-1, *[1] * (len(out.shape) - 1))
        constants = [
            constant(model.graph, f"{out.name}.norm.{name}", np.ascontiguousarray(value))
            for name, value in (("weight", weight), ("bias", (shift - mean * factor).astype(np.float32)))
        ]
        layer = ir.node("Conv", [norm.inputs[0], *constants], {"group": len(weight)}, name=norm.name)
        layer.metadata_props.update(norm.metadata_props)
        model.graph.insert_before(norm, layer)
        made = layer.outputs[0]
        made.shape, made.type, made.name = out.shape, out.type, f"{out.name}.convolution"
        _replace_output(model, out, made)
        model.graph.remove(norm, safe=True)


def _enters_batch(value: ir.Value, source: ir.Value) -> bool:
    """Tell whether a reshape of ``value``, which has the values of ``source``, has another size of the batch."""
    for use in value.uses():
        made = use.node.outputs[0]
        if use.node.op_type == "Reshape" and made.shape and source.shape and made.shape[0] != source.shape[0]:
            return True
        if use.node.op_type in {"Reshape", "Transpose"} and _enters_batch(made, source):
            return True
    return False


def _reduced(node: ir.Node) -> tuple[ir.Value, int, int, int] | None:
    """Input of a reduction, and how many values lie before, on and behind its axes; None where that is not known."""
    source, given = (*node.inputs, None)[:2]
    axes = ir.convenience.get_const_tensor(given) if given is not None else None
    shapes = [None if value is None else value.shape for value in (source, node.outputs[0])]
    if source is None or axes is None or shapes[0] is None or shapes[1] is None:
        return None
    if not all(isinstance(size, int) for shape in shapes for size in list(shape or ())[1:]):
        return None
    sizes = [size if isinstance(size, int) else 1 for size in shapes[0]]
    found = sorted(int(axis) % len(sizes) for axis in axes.numpy().ravel())
    if not found or found[0] == 0 or found != list(range(found[0], found[-1] + 1)):
        return None
    parts = sizes[1 : found[0]], sizes[found[0] : found[-1] + 1], sizes[found[-1] + 1 :]
    before, size, behind = map(math.prod, parts)
    return source, before, size, behind


def _reshaped(model: ir.Model, before: ir.Node, value: ir.Value, name: str, shape: list[int]) -> ir.Value:
    node = ir.node("Reshape", [value, constant(model.graph, f"{name}.shape", np.array(shape, np.int64))], name=name)
    model.graph.insert_before(before, node)
    node.outputs[0].name, node.outputs[0].type = name, value.type
    return node.outputs[0]


def _rolls_as_gathers(model: ir.Model) -> None:
    """A rolled axis is taken by a list of indices.

    OpenVINO gives the dequantization behind a concatenation a number for every position of its axis, though all are
    equal. No reshape lets that pass, and the layer behind a window partition runs in float.
    """
    for concat in list(model.graph):
        found = two_slices(concat)
        if found is None:
            continue
        source, *slices = found
        axis, out = concat.attributes.get_int("axis", 0), concat.outputs[0]
        size = source.shape[axis] if source.shape is not None else None
        if not isinstance(size, int):
            continue
        order = [index for part in slices for index in _taken(part, axis, size)]
        if sorted(order) != list(range(size)):
            continue
        indices = constant(model.graph, f"{out.name}.order", np.array(order, np.int64))
        gather = ir.node("Gather", [source, indices], {"axis": axis}, name=concat.name)
        model.graph.insert_before(concat, gather)
        rolled = gather.outputs[0]
        rolled.shape, rolled.type = source.shape, source.type
        _replace_output(model, out, rolled)
        model.graph.remove(concat, safe=True)


def _concatenations_apart(model: ir.Model) -> None:
    """What is put together along another axis than that of the channels is quantized flat.

    OpenVINO takes a pair right behind a concatenation apart, and the zero points that it then has, one for every
    position of the axis, end in an error or in layers that run in float.
    """
    for concat in [node for node in model.graph if node.op_type == "Concat"]:
        out, axis = concat.outputs[0], concat.attributes.get_int("axis", 0)
        quantize = next((use.node for use in out.uses() if use.node.op_type == "QuantizeLinear"), None)
        rank = 0 if out.shape is None else len(out.shape)
        if quantize is None or rank < 3 or axis % rank == rank - 1 or (axis % rank == 1 and rank > 3):
            continue
        assert out.shape is not None
        sizes = [d for d in list(out.shape)[1:] if isinstance(d, int)]
        if len(sizes) < rank - 1:
            continue
        flat = _reshaped(model, quantize, out, f"{out.name}.flat", [0, math.prod(sizes)])
        quantize.replace_input_with(0, flat)
        for pair in [use.node for use in quantize.outputs[0].uses()]:
            integers, back = pair.outputs[0], f"{pair.outputs[0].name}.back"
            users = list(integers.uses())
            after = next(node for node in model.graph if node in {use.node for use in users})
            whole = _reshaped(model, after, integers, back, [0, *sizes])
            for use in users:
                use.node.replace_input_with(use.idx, whole)


def _taken(part: ir.Node, axis: int, size: int) -> list[int]:
    """Indices that a slice takes along ``axis``; none where it is not known, or of another axis."""
    numbers = [ir.convenience.get_const_tensor(v) if v is not None else None for v in part.inputs[1:]]
    known = [int(number.numpy().item()) for number in numbers if number is not None and number.size == 1]
    if len(known) != len(numbers) or not 3 <= len(known) <= 4:
        return []
    start, end, along, *step = known
    return list(range(size))[slice(start, end, *step)] if along == axis else []


def _replace_output(model: ir.Model, old: ir.Value, new: ir.Value) -> None:
    """Let ``new`` be read wherever ``old`` was, under its name where that is an output of the model."""
    if old.is_graph_output():
        model.graph.outputs[list(model.graph.outputs).index(old)] = new
        old.name, new.name = f"{old.name}.unused", old.name
    ir.convenience.replace_all_uses_with(old, new)


def _quantized(value: ir.Value | None) -> ir.Value | None:
    """What a pair before ``value`` quantizes; None where there is no pair."""
    pair = value.producer() if value is not None else None
    integers = pair.inputs[0] if pair is not None and pair.op_type == "DequantizeLinear" else None
    quantize = integers.producer() if integers is not None else None
    return quantize.inputs[0] if quantize is not None and quantize.op_type == "QuantizeLinear" else None


def _written_as(value: ir.Value | None) -> int:
    """0: floats, 2: integers, 1: that depends."""
    source = _quantized(value)
    if source is None:
        return 1
    kernel = source.producer()
    if kernel is not None and kernel.op_type == "Add" and any(v is not None and v.const_value for v in kernel.inputs):
        layer = next((v.producer() for v in kernel.inputs if v is not None and v.producer() is not None), None)
        kernel = layer if layer is not None and layer.op_type == "MatMul" else kernel
    if kernel is None or kernel.op_type not in {"Conv", "MatMul"}:
        return 1
    return 0 if _readers(source) == 1 else 2


def _readers(source: ir.Value) -> int:
    """Operations that read ``source`` or what a pair makes of it."""
    count = 0
    for use in source.uses():
        pair = use.node.outputs[0]
        count += _readers(pair) if use.node.op_type in {"QuantizeLinear", "DequantizeLinear"} else 1
    return count


def _number(graph: ir.Graph, name: str, value: float) -> ir.Value:
    return constant(graph, name, np.float32(value))


def _name_scaled_products(model: ir.Model) -> None:
    """OpenVINO merges a product and its scale under the name of the scale: coverage looks for the product's."""
    for node in model.graph:
        users = list(node.outputs[0].uses()) if node.op_type == "MatMul" else []
        scale = users[0].node if len(users) == 1 else None
        if scale is not None and scale.op_type == "Mul" and any(v is not None and v.const_value for v in scale.inputs):
            node.name, scale.name = f"{node.name}{PRODUCT}", node.name
