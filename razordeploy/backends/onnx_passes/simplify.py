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


def _unused(model: ir.Model) -> None:
    from onnxscript import optimizer

    optimizer.remove_unused_nodes(model)


def _axes(node: ir.Node) -> list[int] | None:
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        value = ir.convenience.get_const_tensor(node.inputs[1])
        return None if value is None else [int(a) for a in value.numpy().reshape(-1)]
    return None


_PASSES: list[Callable[[ir.Model], None]] = [_fold_constants, _mean_to_global_pool, _constant_shapes, _unused]
