"""Write the graph in the forms that TensorRT has int8 kernels for."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from razordeploy.backends.onnx_passes.values import constant


def rewrite(model: ir.Model) -> None:
    """Change a graph with pairs, in place."""
    for node in list(model.graph):
        if node.op_type == "Conv":
            _with_two_axes(model.graph, node)


def _with_two_axes(graph: ir.Graph, conv: ir.Node) -> None:
    """Write a quantized 1-D convolution as a 2-D one over images of height 1: kernels exist for 2 and 3 axes.

    The integers themselves get the new axis, so that pairs stay next to the convolution.
    """
    x, weight = (v.producer() if v is not None else None for v in conv.inputs[:2])
    out = conv.outputs[0]
    if x is None or weight is None or {x.op_type, weight.op_type} != {"DequantizeLinear"}:
        return
    integers, stored = x.inputs[0], weight.inputs[0]
    numbers = stored.const_value if stored is not None else None
    if integers is None or integers.shape is None or len(integers.shape) != 3 or numbers is None:
        return
    name = str(conv.name)
    image = _reshaped(graph, "Unsqueeze", integers, f"{name}.image", [2], before=conv)
    again = ir.node("DequantizeLinear", [image, *x.inputs[1:]], name=f"{name}.image.dequantize")
    graph.insert_before(conv, again)
    _describe(again.outputs[0], f"{name}.image.dequantize", image.shape, ir.DataType.FLOAT)
    kernel = constant(graph, f"{name}.kernel", numbers.numpy()[:, :, None])
    wide = ir.node("DequantizeLinear", [kernel, *weight.inputs[1:]], name=f"{name}.kernel.dequantize")
    wide.attributes.update(weight.attributes)
    graph.insert_before(conv, wide)
    _describe(wide.outputs[0], f"{name}.kernel.dequantize", kernel.shape, ir.DataType.FLOAT)
    conv.replace_input_with(0, again.outputs[0])
    conv.replace_input_with(1, wide.outputs[0])
    for key, fill in (("kernel_shape", 1), ("strides", 1), ("dilations", 1)):
        if key in conv.attributes:
            conv.attributes[key] = ir.AttrInt64s(key, [fill, *conv.attributes[key].as_ints()])
    if "pads" in conv.attributes:
        first, last = conv.attributes["pads"].as_ints()
        conv.attributes["pads"] = ir.AttrInt64s("pads", [0, first, 0, last])
    _squeeze_after(graph, conv, out)


def _squeeze_after(graph: ir.Graph, conv: ir.Node, out: ir.Value) -> None:
    flat_shape, name = out.shape, str(conv.name)
    axes = constant(graph, f"{name}.row.axes", np.array([2], np.int64))
    node = ir.node("Squeeze", [out, axes], name=f"{name}.row")
    graph.insert_after(conv, node)
    row = node.outputs[0]
    _describe(row, f"{name}.row", flat_shape, ir.DataType.FLOAT)
    if out.is_graph_output():
        graph.outputs[list(graph.outputs).index(out)] = row
        out.name, row.name = f"{out.name}.image", out.name
    ir.convenience.replace_all_uses_with(out, row)
    node.replace_input_with(0, out)
    if flat_shape is not None:
        out.shape = ir.Shape([*list(flat_shape)[:2], 1, *list(flat_shape)[2:]])


def _reshaped(graph: ir.Graph, op: str, value: ir.Value, name: str, axes: list[int], *, before: ir.Node) -> ir.Value:
    node = ir.node(op, [value, constant(graph, f"{name}.axes", np.array(axes, np.int64))], name=name)
    graph.insert_before(before, node)
    sizes = list(value.shape or ())
    _describe(node.outputs[0], name, ir.Shape([*sizes[:2], 1, *sizes[2:]]), value.dtype or ir.DataType.INT8)
    return node.outputs[0]


def _describe(value: ir.Value, name: str, shape: ir.Shape | None, kind: ir.DataType) -> None:
    value.name, value.shape, value.type = name, shape, ir.TensorType(kind)
