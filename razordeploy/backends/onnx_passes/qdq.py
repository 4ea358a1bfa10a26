"""Turn marks into quantize-dequantize pairs, or drop them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from razordeploy.backends.onnx_passes.export import MarkedModel
from razordeploy.backends.onnx_passes.simplify import MARK
from razordeploy.backends.onnx_passes.values import constant
from razordeploy.errors import BackendError
from razordeploy.quantization.plan import QParams, QuantPlan, QuantPoint

_DTYPES = {True: (ir.DataType.INT8, np.int8), False: (ir.DataType.UINT8, np.uint8)}


def float_model(marked: MarkedModel) -> ir.Model:
    """Return a copy of the model without marks."""
    model = marked.model.clone()
    for node in list(model.graph):
        if (node.domain, node.op_type) == MARK:
            _bypass(model, node)
    return _finish(model)


def quantized_model(
    marked: MarkedModel,
    plan: QuantPlan,
    params: Mapping[str, QParams],
    rewrite: Callable[[ir.Model], None] | None = None,
) -> ir.Model:
    """Return a copy with a pair at every point of ``plan``: QuantizeLinear and DequantizeLinear for activations,
    an integer initializer and DequantizeLinear for weights and, where the plan says so, for biases.

    Args:
        marked: the float model with marks.
        plan: one backend's plan; its edges are among the marks.
        params: scale and zero point of each group.
        rewrite: the backend's own changes of the graph with pairs, made before biases become integers.
    """  # noqa: D205
    model = marked.model.clone()
    writer = _Writer(model, params)
    edges = {(p.node, user): p for p in plan.points for user in p.users}
    for node in list(model.graph):
        if (node.domain, node.op_type) != MARK:
            continue
        point = edges.get(marked.marks[str(node.outputs[0].name)])
        if point is not None:
            writer.replace(node, point)
        _bypass(model, node)
    if rewrite is not None:
        rewrite(model)
    if plan.bias == "int32":
        for node in list(model.graph):
            if node.op_type in {"Conv", "Gemm"}:
                writer.quantize_bias(node)
    return _finish(model)


def _bypass(model: ir.Model, node: ir.Node) -> None:
    source, mark = node.inputs[0], node.outputs[0]
    assert source is not None
    for i, output in enumerate(model.graph.outputs):
        if output is mark:
            name = mark.name
            mark.name = f"{name}_mark"
            if source in model.graph.outputs or source.is_graph_input():
                node.op_type, node.domain = "Identity", ""
                mark.name = name
                return
            source.name = name
            model.graph.outputs[i] = source
    ir.convenience.replace_all_uses_with(mark, source)
    model.graph.remove(node, safe=True)


def _finish(model: ir.Model) -> ir.Model:
    from onnxscript import optimizer

    model.graph.sort()  # what is unused is found from the end
    optimizer.remove_unused_nodes(model)
    model.opset_imports.pop(MARK[0], None)
    model.producer_name, model.producer_version = "razordeploy", ""
    return model


def _scale(value: ir.Value | None) -> np.ndarray | None:
    """Scale in float64 of a value that a DequantizeLinear gives; None for any other."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[1] is None:
        return None
    tensor = node.inputs[1].const_value
    return None if tensor is None else tensor.numpy().astype(np.float64)


class _Writer:
    """Adds pairs to one model; a point's pair is written once and shared by its consumers."""

    def __init__(self, model: ir.Model, params: Mapping[str, QParams]) -> None:
        self.model, self.params = model, params
        self.pairs: dict[QuantPoint, ir.Value] = {}
        self.grids: dict[str, tuple[ir.Value, ir.Value]] = {}

    def replace(self, mark: ir.Node, point: QuantPoint) -> None:
        source = mark.inputs[0]
        assert source is not None
        result = self.pairs.get(point)
        if result is None:
            write = self._weight if point.kind == "weight" else self._activation
            result = self.pairs[point] = write(source, point)
        mark.replace_input_with(0, result)

    def _grid(self, group: str) -> tuple[ir.Value, ir.Value]:
        if group not in self.grids:
            p = self.params[group]
            _, dtype = _DTYPES[p.scheme.signed]
            scale = constant(self.model.graph, f"{group}.scale", p.scale.numpy().astype(np.float32))
            zero = constant(self.model.graph, f"{group}.zero_point", p.zero_point.numpy().astype(dtype))
            self.grids[group] = (scale, zero)
        return self.grids[group]

    def _append(
        self, op_type: str, name: str, inputs: list[ir.Value], dtype: ir.DataType, **attributes: int
    ) -> ir.Value:
        node = ir.node(op_type, inputs, attributes=attributes or None, name=name)
        self.model.graph.append(node)
        out = node.outputs[0]
        out.name, out.shape, out.type = name, inputs[0].shape, ir.TensorType(dtype)
        return out

    def _activation(self, source: ir.Value, point: QuantPoint) -> ir.Value:
        scale, zero = self._grid(point.group)
        dtype, _ = _DTYPES[point.scheme.signed]
        name = f"{point.node}.{point.group}"
        quantized = self._append("QuantizeLinear", f"{name}.quantize", [source, scale, zero], dtype)
        return self._append("DequantizeLinear", f"{name}.dequantize", [quantized, scale, zero], ir.DataType.FLOAT)

    def _weight(self, source: ir.Value, point: QuantPoint) -> ir.Value:
        tensor, axis = source.const_value, point.scheme.ch_axis
        if tensor is None:
            raise BackendError(f"the weight of '{point.users[0]}' is not a constant in the ONNX graph")
        p = self.params[point.group]
        shape = [1] * len(tensor.shape)
        if axis is not None:
            shape[axis] = -1
        scale_np = p.scale.numpy().astype(np.float32).reshape(shape)
        zero_np = p.zero_point.numpy().reshape(shape)
        _, dtype = _DTYPES[point.scheme.signed]
        integers = np.rint(tensor.numpy().astype(np.float32) / scale_np) + zero_np
        integers = np.clip(integers, point.scheme.qmin, point.scheme.qmax).astype(dtype)
        scale, zero = self._grid(point.group)
        quantized = constant(self.model.graph, f"{point.node}.quantized", integers)
        extra = {} if axis is None else {"axis": axis}
        return self._append(
            "DequantizeLinear", f"{point.node}.dequantize", [quantized, scale, zero], ir.DataType.FLOAT, **extra
        )

    def quantize_bias(self, node: ir.Node) -> None:
        """Store the bias as int32 of scale ``input scale * weight scale``, zero point 0."""
        source = node.inputs[2] if len(node.inputs) > 2 else None
        floats = source.const_value if source is not None else None
        activation, weight = (_scale(v) for v in node.inputs[:2])
        if floats is None or activation is None or weight is None:
            return
        scale_np = (activation * weight).astype(np.float32)
        values = floats.numpy().astype(np.float64) / scale_np.astype(np.float64)
        limits = np.iinfo(np.int32)
        if np.abs(values).max(initial=0) > limits.max:
            return  # an integer bias would overflow: a float one is right, if slower
        name = f"{node.name}.bias"
        quantized = constant(self.model.graph, f"{name}.quantized", np.rint(values).astype(np.int32))
        scale = constant(self.model.graph, f"{name}.scale", scale_np)
        zero = constant(self.model.graph, f"{name}.zero_point", np.zeros(scale_np.shape, np.int32))
        extra = {"axis": 0} if scale_np.ndim else {}
        dequantized = self._append(
            "DequantizeLinear", f"{name}.dequantize", [quantized, scale, zero], ir.DataType.FLOAT, **extra
        )
        node.replace_input_with(2, dequantized)
