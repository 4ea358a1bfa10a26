"""Rewrites of the exported ONNX graph that every engine profits from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

MARK = ("razordeploy", "Mark")
"""Domain and type of the operator that marks an edge; removed before a model is saved."""


def simplify(model: ir.Model) -> None:
    """Run the passes below in order, in place."""
    for step in _PASSES:
        step(model)


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
        tensor = ir.tensor(values, name=f"{node.outputs[0].name}.shape")
        constant = ir.Value(
            name=tensor.name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        model.graph.register_initializer(constant)
        node.replace_input_with(1, constant)


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


def _unused(model: ir.Model) -> None:
    from onnxscript import optimizer

    optimizer.remove_unused_nodes(model)


def _axes(node: ir.Node) -> list[int] | None:
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        value = ir.convenience.get_const_tensor(node.inputs[1])
        return None if value is None else [int(a) for a in value.numpy().reshape(-1)]
    return None


_PASSES: list[Callable[[ir.Model], None]] = [
    _fold_constants,
    _mean_to_global_pool,
    _constant_shapes,
    _pad_in_convolution,
    _unused,
]
