"""Rewrites of the exported ONNX graph that every engine profits from."""

from __future__ import annotations

from collections.abc import Callable

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


def _axes(node: ir.Node) -> list[int] | None:
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        value = ir.convenience.get_const_tensor(node.inputs[1])
        return None if value is None else [int(a) for a in value.numpy().reshape(-1)]
    return None


_PASSES: list[Callable[[ir.Model], None]] = [_fold_constants, _mean_to_global_pool]
