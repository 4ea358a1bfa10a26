"""Rewrites of the exported ONNX graph that every engine profits from."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from razordeploy.backends.onnx_passes.values import constant

MARK = ("razordeploy", "Mark")
"""Domain and type of the operator that marks an edge; removed before a model is saved."""


def simplify(model: ir.Model) -> None:
    """Run the passes below in order, in place."""
    for step in _PASSES:
        step(model)


def _rolled_keeps_its_shape(model: ir.Model) -> None:
    """The exporter leaves the shape between two rolled axes open, and then computes it at run time."""
    for node in model.graph:
        parts, out = two_slices(node), node.outputs[0]
        if parts is None or out.shape is not None:
            continue
        source, behind, before = parts
        if behind.inputs[1] is before.inputs[2]:  # from one index to the end, then up to that index
            out.shape, out.type = source.shape, source.type


def _resized_has_a_shape(model: ir.Model) -> None:
    """The exporter leaves the shape open behind an upsampling by a factor."""
    for node in model.graph:
        source, out = node.inputs[0] if node.inputs else None, node.outputs[0]
        if node.op_type != "Resize" or len(node.inputs) != 3 or source is None or source.shape is None:
            continue
        scales = ir.convenience.get_const_tensor(node.inputs[2]) if node.inputs[2] is not None else None
        if out.shape is None and scales is not None and source.shape.rank() == scales.size:
            factors = [float(f) for f in scales.numpy()]
            sizes = zip(source.shape, factors, strict=True)
            out.shape = ir.Shape([math.floor(s * f) if isinstance(s, int) else s if f == 1 else None for s, f in sizes])
            out.type = source.type


def two_slices(concat: ir.Node) -> tuple[ir.Value, ir.Node, ir.Node] | None:
    """A value and the two slices of it that ``concat`` joins; None where it joins anything else."""
    parts = [v.producer() for v in concat.inputs if v is not None] if concat.op_type == "Concat" else []
    if len(concat.inputs) != 2 or len(parts) != 2:
        return None
    first, second = parts
    if first is None or second is None or first.op_type != "Slice" or second.op_type != "Slice":
        return None
    source = first.inputs[0]
    return None if source is None or source is not second.inputs[0] else (source, first, second)


def _fold_constants(model: ir.Model) -> None:
    from onnxscript import optimizer

    optimizer.fold_constants(model, onnx_shape_inference=False)
    optimizer.remove_unused_nodes(model)


def _mean_to_global_pool(model: ir.Model) -> None:
    """A mean over all image axes is a GlobalAveragePool: engines have an int8 kernel for that and none for the mean."""
    for node in model.graph:
        if node.op_type != "ReduceMean" or node.attributes.get_int("keepdims", 1) != 1:
            continue
        source = node.inputs[0]
        axes = _axes(node)
        if source is None or source.shape is None or len(source.shape) < 3 or axes is None:
            continue
        rank = len(source.shape)
        if sorted(a % rank for a in axes) == list(range(2, rank)):
            node.op_type = "GlobalAveragePool"
            node.resize_inputs(1)
            node.attributes.clear()


def _no_turns(model: ir.Model) -> None:
    """Drop transposes that move no axis: the exporter writes them around an indexing, and engines run them."""
    for node in list(model.graph):
        out, perm = node.outputs[0], list(node.attributes.get_ints("perm", [])) if node.op_type == "Transpose" else []
        if perm and perm == sorted(perm) and node.inputs[0] is not None and not out.is_graph_output():
            ir.convenience.replace_all_uses_with(out, node.inputs[0])
            model.graph.remove(node, safe=True)


def _constant_shapes(model: ir.Model) -> None:
    """Give a Reshape whose only unknown size is the batch a constant shape.

    The exporter computes the shape from the input's at run time: four operations on scalars for every flattening.
    """
    for node in model.graph:
        if node.op_type != "Reshape" or node.inputs[0] is None or node.inputs[1] is None:
            continue
        shape, source = node.outputs[0].shape, node.inputs[0].shape
        if ir.convenience.get_const_tensor(node.inputs[1]) is not None or shape is None:
            continue
        sizes = [d if isinstance(d, int) else None for d in shape]
        if sizes.count(None) != 1 or 0 in sizes:
            continue
        values = np.array([-1 if size is None else size for size in sizes], np.int64)
        same_batch = source is not None and len(source) and sizes[0] is None and source[0] == shape[0]
        if same_batch:
            values[0] = 0  # copied from the input
            node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)
        node.replace_input_with(1, constant(model.graph, f"{node.outputs[0].name}.shape", values))


def _pad_in_convolution(model: ir.Model) -> None:
    """Give a convolution the zero padding that stands before it: no kernel pads in int8 for free but the convolution's.

    Models ported from TensorFlow pad on one side only, which the captured graph's convolutions cannot.
    """
    for node in model.graph:
        if node.op_type != "Pad" or len(list(node.outputs[0].uses())) != 1 or node.outputs[0].is_graph_output():
            continue
        use = next(iter(node.outputs[0].uses()))
        mark = use.node if (use.node.domain, use.node.op_type) == MARK else None
        if mark is not None:
            uses = list(mark.outputs[0].uses())
            use = uses[0] if len(uses) == 1 else use
        conv, pads = use.node, _image_pads(node)
        if conv.op_type != "Conv" or use.idx != 0 or pads is None:
            continue
        before = conv.attributes.get_ints("pads", [0] * len(pads))
        auto = conv.attributes.get_string("auto_pad", "NOTSET")
        if auto not in {"NOTSET", "VALID"}:
            continue
        conv.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(before, pads, strict=True)])
        conv.attributes.pop("auto_pad", None)
        first = mark or conv
        first.replace_input_with(0, node.inputs[0])
        if mark is not None and node.inputs[0] is not None:
            mark.outputs[0].shape = node.inputs[0].shape


def _image_pads(node: ir.Node) -> list[int] | None:
    """``[begin..., end...]`` over the image axes of a zero Pad; None for any other padding."""
    rank = len(node.outputs[0].shape) if node.outputs[0].shape is not None else 0
    sizes = ir.convenience.get_const_tensor(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if rank < 3 or sizes is None or node.attributes.get_string("mode", "constant") != "constant":
        return None
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        return None
    if value is not None:
        constant = ir.convenience.get_const_tensor(value)
        if constant is None or constant.numpy().any():
            return None
    pads = [int(p) for p in sizes.numpy()]
    if len(pads) != 2 * rank or min(pads) < 0 or any(pads[i] for i in (0, 1, rank, rank + 1)):
        return None
    return pads[2:rank] + pads[rank + 2 :]


def _batch_norm_again(model: ir.Model) -> None:
    """``x * scale + shift`` per channel, what is left of a batch norm that no layer could take up, in one operation.

    ONNX Runtime makes one pass of it instead of two. OpenVINO takes a product and a sum into the quantization behind
    them, and then moves that, once a concatenation, before the concatenations of DenseNet: slow, and wrong.
    """
    for node in list(model.graph):
        if node.op_type != "Mul":
            continue
        users = list(node.outputs[0].uses())
        add = users[0].node if len(users) == 1 and not node.outputs[0].is_graph_output() else None
        if add is None or add.op_type != "Add":
            continue
        factor, term = _channel_constant(node, None), _channel_constant(add, node.outputs[0])
        if factor is None or term is None or len(factor[1]) != len(term[1]):
            continue
        x, scale = factor
        channels = len(scale)
        vectors = {"scale": scale, "shift": term[1], "mean": np.zeros(channels), "var": np.ones(channels)}
        inputs = [
            constant(model.graph, f"{add.outputs[0].name}.norm.{k}", v.astype(np.float32)) for k, v in vectors.items()
        ]
        norm = ir.node("BatchNormalization", [x, *inputs], attributes={"epsilon": 0.0}, name=f"{add.name}.BatchNorm")
        norm.metadata_props.update(add.metadata_props)
        model.graph.insert_before(add, norm)
        out, made = add.outputs[0], norm.outputs[0]
        made.shape, made.type = out.shape, out.type
        if out.is_graph_output():
            model.graph.outputs[list(model.graph.outputs).index(out)] = made
        ir.convenience.replace_all_uses_with(out, made)
        made.name, out.name = out.name, f"{out.name}.sum"
        model.graph.remove([add, node], safe=True)


def _channel_constant(node: ir.Node, value: ir.Value | None) -> tuple[ir.Value, np.ndarray] | None:
    """The other operand of an image ``(N, C, ...)`` and a constant per channel, and that constant as ``(C,)``."""
    for x, other in (tuple(node.inputs), tuple(node.inputs)[::-1]):
        if x is None or other is None or (value is not None and x is not value):
            continue
        tensor = ir.convenience.get_const_tensor(other)
        shape = node.outputs[0].shape
        if tensor is None or shape is None or len(shape) < 3 or not isinstance(shape[1], int):
            continue
        value_shape = tensor.numpy().shape
        aligned = [1] * (len(shape) - len(value_shape)) + list(value_shape)
        if aligned == [1, shape[1], *[1] * (len(shape) - 2)]:
            return x, tensor.numpy().reshape(-1)
    return None


def _unused(model: ir.Model) -> None:
    from onnxscript import optimizer

    optimizer.remove_unused_nodes(model)


def _axes(node: ir.Node) -> list[int] | None:
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        value = ir.convenience.get_const_tensor(node.inputs[1])
        return None if value is None else [int(a) for a in value.numpy().reshape(-1)]
    return None


_PASSES: list[Callable[[ir.Model], None]] = [
    _rolled_keeps_its_shape,
    _resized_has_a_shape,
    _fold_constants,
    _mean_to_global_pool,
    _no_turns,
    _constant_shapes,
    _pad_in_convolution,
    _batch_norm_again,
    _unused,
]
