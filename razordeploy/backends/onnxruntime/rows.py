"""Run linear layers of sequences as ``Gemm`` on rows.

ONNX Runtime has a fused int8 kernel with bias for ``Gemm``, which takes matrices only. A ``MatMul`` of a sequence adds
its bias in a second pass, and where all sizes are known ONNX Runtime itself puts a Reshape between the pair and the
product, which then runs in float.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def linear_on_rows(model: ir.Model) -> None:
    """Rewrite ``DQ(x) (N, ..., K) @ DQ(W) + b`` as Reshape, DQ, Gemm, Reshape, in place.

    The integers are reshaped, not the floats; sizes behind the first axis must be known.
    """
    for node in list(model.graph):
        if node.op_type == "MatMul" and _rank(node.inputs[0]) > 2:
            _rewrite(model.graph, node)


def _rank(value: ir.Value | None) -> int:
    return 0 if value is None or value.shape is None else len(value.shape)


def _rewrite(graph: ir.Graph, product: ir.Node) -> None:
    x, weight = product.inputs[0], product.inputs[1]
    pair = x.producer() if x is not None else None
    if x is None or weight is None or pair is None or pair.op_type != "DequantizeLinear":
        return
    turn = weight.producer()
    transposed = turn is not None and turn.op_type == "Transpose"
    integers = turn.inputs[0] if turn is not None and transposed else weight
    source = integers.producer() if integers is not None else None
    if source is None or source.op_type != "DequantizeLinear" or _rank(integers) != 2:
        return
    sizes = [d if isinstance(d, int) else -1 for d in x.shape or ()]
    if -1 in sizes[1:]:
        return
    result = product.outputs[0]
    add = _only_user(result, "Add")
    bias = None
    if add is not None:
        other = next((v for v in add.inputs if v is not result), None)
        if other is not None and other.const_value is not None and _rank(other) == 1:
            bias = other
    end = add if add is not None and bias is not None else product
    out = end.outputs[0]
    rows = _reshaped(graph, pair.inputs[0], [-1, sizes[-1]], f"{product.name}.rows", before=end)
    dequantized = ir.node("DequantizeLinear", [rows, *pair.inputs[1:]], name=f"{product.name}.rows.dequantize")
    graph.insert_before(end, dequantized)
    _describe(dequantized.outputs[0], f"{product.name}.rows.dequantize", rows.shape, ir.DataType.FLOAT)
    gemm = ir.node(
        "Gemm",
        [dequantized.outputs[0], integers, *([bias] if bias is not None else [])],
        attributes={"transB": 1} if transposed else None,
        name=product.name,
    )
    graph.insert_before(end, gemm)
    _describe(gemm.outputs[0], f"{product.name}.gemm", None, ir.DataType.FLOAT)
    matrix_out = gemm.outputs[0]
    relu = _only_user(out, "Relu") or _only_user(out, "Clip")
    if relu is not None:  # it is fused into the product only right behind it
        fused = ir.node(relu.op_type, [matrix_out, *relu.inputs[1:]], name=f"{relu.name}.rows")
        graph.insert_before(end, fused)
        _describe(fused.outputs[0], f"{product.name}.activated", None, ir.DataType.FLOAT)
        matrix_out, out = fused.outputs[0], relu.outputs[0]
    _restore(graph, matrix_out, out, end)
    product.name = f"{product.name}.product"


def _restore(graph: ir.Graph, matrix: ir.Value, out: ir.Value, end: ir.Node) -> None:
    """Give ``out``'s readers the matrix in ``out``'s shape; behind a quantization the integers are reshaped instead."""
    shape = [d if isinstance(d, int) else -1 for d in out.shape or ()]
    shape[0] = -1
    quantize = _only_user(out, "QuantizeLinear")
    name = str(out.name)
    if quantize is not None and out not in graph.outputs:
        quantize.replace_input_with(0, matrix)
        target = quantize.outputs[0]
        kind = target.type.dtype if target.type is not None else ir.DataType.UINT8
        restored = _reshaped(graph, target, shape, f"{name}.rows.restored", after=quantize)
        _describe(restored, f"{name}.rows.restored", out.shape, kind)
        ir.convenience.replace_all_uses_with(target, restored)
        node = restored.producer()
        assert node is not None
        node.replace_input_with(0, target)
        return
    restored = _reshaped(graph, matrix, shape, f"{name}.rows.restored", before=end)
    _describe(restored, f"{name}.rows.restored", out.shape, ir.DataType.FLOAT)
    if out in graph.outputs:
        graph.outputs[list(graph.outputs).index(out)] = restored
        out.name, restored.name = f"{name}.unused", name
    ir.convenience.replace_all_uses_with(out, restored)


def _only_user(value: ir.Value, op_type: str) -> ir.Node | None:
    users = list(value.uses())
    if len(users) == 1 and not value.is_graph_output() and users[0].node.op_type == op_type:
        return users[0].node
    return None


def _reshaped(
    graph: ir.Graph,
    value: ir.Value | None,
    sizes: list[int],
    name: str,
    *,
    before: ir.Node | None = None,
    after: ir.Node | None = None,
) -> ir.Value:
    tensor = ir.tensor(np.array(sizes, np.int64), name=f"{name}.shape")
    shape = ir.Value(
        name=tensor.name, shape=ir.Shape([len(sizes)]), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(shape)
    node = ir.node("Reshape", [value, shape], name=name)
    if before is not None:
        graph.insert_before(before, node)
    elif after is not None:
        graph.insert_after(after, node)
    kind = value.type.dtype if value is not None and value.type is not None else ir.DataType.UINT8
    _describe(node.outputs[0], name, ir.Shape([None if s < 0 else s for s in sizes]), kind)
    return node.outputs[0]


def _describe(value: ir.Value, name: str, shape: ir.Shape | None, kind: ir.DataType) -> None:
    value.name, value.shape, value.type = name, shape, ir.TensorType(kind)
