"""Write the graph in the forms that ONNX Runtime has int8 and fused kernels for."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from razordeploy.backends.onnx_passes.hard import hard_sigmoid_of_layers, hard_swish_of_integers
from razordeploy.backends.onnx_passes.pools import average_pools
from razordeploy.backends.onnx_passes.rows import linear_on_rows
from razordeploy.backends.onnx_passes.values import constant
from razordeploy.backends.onnx_passes.vectors import fill_vectors

_CONTRIB = "com.microsoft"


def rewrite(model: ir.Model) -> None:
    """Change a graph with pairs, in place."""
    linear_on_rows(model, rank=2, gemm=True)
    bounds_apart_from_gemm(model)
    pools_of_floats_apart(model)
    one_silu(model)
    sum_apart_from_norm(model)
    hard_sigmoid_of_layers(model)
    hard_swish_of_integers(model)
    average_pools(model)
    fill_vectors(model, depthwise=16, dense=4)


def bounds_apart_from_gemm(model: ir.Model) -> None:
    """Put ``Max`` behind an int8 ``Gemm`` whose ``Relu`` or ``Clip`` something in float reads, in place.

    ONNX Runtime takes either of them for a part of the Gemm, which then has to end in a QuantizeLinear: it runs in
    float where it does not.
    """
    for node in list(model.graph):
        x = node.inputs[0] if node.op_type in ("Relu", "Clip") else None
        gemm = x.producer() if x is not None else None
        if x is None or gemm is None or gemm.op_type != "Gemm" or not _is_dequantized(gemm.inputs[0]):
            continue
        if [use.node.op_type for use in node.outputs[0].uses()] == ["QuantizeLinear"]:
            continue
        if node.op_type == "Relu":
            node.op_type = "Max"
            node.resize_inputs(2)
            node.replace_input_with(1, constant(model.graph, f"{node.name}.low", np.float32(0)))
            continue
        low = node.inputs[1] or constant(model.graph, f"{node.name}.low", np.float32(-np.inf))
        bound = ir.node("Max", [x, low], name=f"{node.name}.max")
        bound.outputs[0].shape, bound.outputs[0].type = x.shape, x.type
        model.graph.insert_before(node, bound)
        node.replace_input_with(0, bound.outputs[0])


def pools_of_floats_apart(model: ir.Model) -> None:
    """Put a bound that nothing reaches between a pool of floats and its QuantizeLinear, in place.

    ONNX Runtime moves the latter in front of the pool, whose kernel for integers of such an image takes twenty times
    as long as that for floats. What bounds stand there it leaves alone.
    """
    for node in list(model.graph):
        x = node.inputs[0] if node.op_type == "MaxPool" else None
        if x is None or _is_dequantized(x) or len(node.outputs) != 1:
            continue
        out = node.outputs[0]
        if out.is_graph_output() or [use.node.op_type for use in out.uses()] != ["QuantizeLinear"]:
            continue
        (use,) = out.uses()
        lowest = constant(model.graph, f"{node.name}.lowest", np.finfo(np.float32).min)
        bound = ir.node("Max", [out, lowest], name=f"{node.name}.bound")
        bound.outputs[0].name, bound.outputs[0].shape, bound.outputs[0].type = f"{out.name}.bound", out.shape, out.type
        model.graph.insert_after(node, bound)
        use.node.replace_input_with(0, bound.outputs[0])


def sum_apart_from_norm(model: ir.Model) -> None:
    """Write a float sum that a layer norm reads as ``Sum``, in place.

    ONNX Runtime fuses ``Add`` and ``LayerNormalization`` into one kernel that takes seven to ten times as long as the
    two do.
    """
    for node in model.graph:
        if node.op_type != "Add" or node.domain or any(_rank(v) < 2 for v in node.inputs):
            continue
        if any(use.node.op_type == "LayerNormalization" for use in node.outputs[0].uses()):
            node.op_type = "Sum"


def one_silu(model: ir.Model) -> None:
    """Replace ``x * Sigmoid(x)`` by ``QuickGelu(x, alpha=1)``, in place.

    ONNX Runtime fuses them itself in float graphs, but gives each reader of a dequantized value a DequantizeLinear of
    its own first: the two then read different values, and run as four passes over memory.
    """
    for node in list(model.graph):
        found = _gate(node)
        if found is None:
            continue
        x, out = found, node.outputs[0]
        fused = ir.node("QuickGelu", [x], domain=_CONTRIB, attributes={"alpha": 1.0}, name=f"{node.name}.QuickGelu")
        model.graph.insert_before(node, fused)
        made = fused.outputs[0]
        made.shape, made.type = out.shape, out.type
        made.name = f"{out.name}.silu"
        if out.is_graph_output():
            model.graph.outputs[list(model.graph.outputs).index(out)] = made
            made.name, out.name = out.name, made.name
        ir.convenience.replace_all_uses_with(out, made)
        model.opset_imports[_CONTRIB] = 1


def _gate(node: ir.Node) -> ir.Value | None:
    if node.op_type != "Mul" or node.domain:
        return None
    for x, gate in (tuple(node.inputs), tuple(node.inputs)[::-1]):
        source = gate.producer() if gate is not None else None
        if source is not None and source.op_type == "Sigmoid" and source.inputs[0] is x:
            return x
    return None


def _is_dequantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def _rank(value: ir.Value | None) -> int:
    return 0 if value is None or value.shape is None else len(value.shape)
