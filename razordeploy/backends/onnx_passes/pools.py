"""Average pools between pairs in forms that ONNX Runtime computes right, and fast.

Its int8 pool takes ten times as long as its int8 depthwise convolution with a window of ones, whose sums are the same
integers. Where the last window is cut off (``ceil_mode``) it divides by a whole window's size if padding counts.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from razordeploy.backends.onnx_passes.values import constant

_RANKS = (1, 2)
"""Image axes that there are int8 kernels for."""


def average_pools(model: ir.Model) -> None:
    """Write ``Q(AveragePool(DQ(x)))`` with windows of one size as a convolution, others without padding, in place."""
    for node in list(model.graph):
        channels = _channels(node)
        if channels is None:
            continue
        if _has_whole_windows(node):
            _as_convolution(model.graph, node, channels)
        elif node.attributes.get_int("count_include_pad", 0) == 1:
            _pad_before(model.graph, node)


def _channels(node: ir.Node) -> int | None:
    """Channels of an average pool of images between pairs; None for anything else."""
    source = node.inputs[0].producer() if node.op_type == "AveragePool" and node.inputs[0] is not None else None
    if source is None or source.op_type != "DequantizeLinear" or node.outputs[0].is_graph_output():
        return None
    rank, auto = len(_sizes(node, "kernel_shape")), node.attributes.get_string("auto_pad", "NOTSET")
    if rank not in _RANKS or auto not in {"NOTSET", "VALID"}:
        return None
    readers = {use.node.op_type for use in node.outputs[0].uses()}
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    channels = shape[1] if shape is not None and len(shape) == rank + 2 else None
    return channels if isinstance(channels, int) and channels > 1 and readers == {"QuantizeLinear"} else None


def _sizes(node: ir.Node, key: str) -> list[int]:
    return [int(size) for size in node.attributes.get_ints(key, [])]


def _has_whole_windows(node: ir.Node) -> bool:
    """Tell whether every average is over as many values."""
    window = _sizes(node, "kernel_shape")
    pads = _sizes(node, "pads") or [0] * 2 * len(window)
    if any(pads) and node.attributes.get_int("count_include_pad", 0) != 1:
        return False
    if node.attributes.get_int("ceil_mode", 0) != 1:
        return True
    assert node.inputs[0] is not None and node.inputs[0].shape is not None
    strides, dilations = (_sizes(node, key) or [1] * len(window) for key in ("strides", "dilations"))
    for i, size in enumerate(node.inputs[0].shape[2:]):
        reach = (window[i] - 1) * dilations[i] + 1
        if not isinstance(size, int) or (size + pads[i] + pads[i + len(window)] - reach) % strides[i]:
            return False
    return True


def _as_convolution(graph: ir.Graph, node: ir.Node, channels: int) -> None:
    window, name = _sizes(node, "kernel_shape"), node.outputs[0].name
    weight = constant(graph, f"{name}.ones", np.ones((channels, 1, *window), np.int8))
    scale = constant(graph, f"{name}.ones.scale", np.asarray(1 / math.prod(window), np.float32))
    zero = constant(graph, f"{name}.ones.zero_point", np.asarray(0, np.int8))
    pair = ir.node("DequantizeLinear", [weight, scale, zero], name=f"{name}.ones.dequantize")
    out = pair.outputs[0]
    out.name, out.shape, out.type = pair.name, weight.shape, ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(node, pair)
    kept = {k: v for k, v in node.attributes.items() if k in {"dilations", "kernel_shape", "pads", "strides"}}
    node.op_type = "Conv"
    node.attributes.clear()
    node.attributes.update(kept | {"group": ir.AttrInt64("group", channels)})
    node.resize_inputs(2)
    node.replace_input_with(1, out)


def _pad_before(graph: ir.Graph, node: ir.Node) -> None:
    """Pad the integers with zero points; nothing is left then that the pool could count or not."""
    node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 0)
    pads = _sizes(node, "pads")
    if not any(pads):
        return
    x = node.inputs[0]
    pair = x.producer() if x is not None else None
    assert x is not None and pair is not None and x.shape is not None
    rank, name = len(pads) // 2, f"{node.outputs[0].name}.padded"
    amounts = np.array([0, 0, *pads[:rank], 0, 0, *pads[rank:]], np.int64)
    pad = ir.node("Pad", [pair.inputs[0], constant(graph, f"{name}.sizes", amounts), pair.inputs[2]], name=name)
    again = ir.node("DequantizeLinear", [pad.outputs[0], *pair.inputs[1:]], name=f"{name}.dequantize")
    sizes = [s + pads[i] + pads[i + rank] if isinstance(s, int) else None for i, s in enumerate(x.shape[2:])]
    for made, dtype in ((pad, pair.inputs[0].dtype if pair.inputs[0] is not None else None), (again, x.dtype)):
        out = made.outputs[0]
        out.name, out.shape = made.name, ir.Shape([*x.shape[:2], *sizes])
        out.type = ir.TensorType(dtype) if dtype is not None else None
    graph.insert_before(node, [pad, again])
    node.attributes["pads"] = ir.AttrInt64s("pads", [0] * len(pads))
    node.replace_input_with(0, again.outputs[0])
