"""Run linear layers of sequences and of channels-last images on the shapes that engines have int8 kernels for.

ONNX Runtime's fused kernel with an integer bias is ``Gemm``, on matrices. A ``MatMul`` of a sequence adds its bias in
a second pass, and where all sizes are known ONNX Runtime itself puts a Reshape between the pair and the product, which
then runs in float. OpenVINO fuses zero point, bias and activation of sequences ``(N, T, C)``, not of images
``(N, H, W, C)``.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from razordeploy.backends.onnx_passes.values import constant

_POINTWISE = {"Relu", "Clip", "Gelu", "Sigmoid", "Tanh", "HardSwish", "QuickGelu"}


def linear_on_rows(model: ir.Model, *, rank: int, gemm: bool) -> None:
    """Rewrite ``DQ(x) (N, ..., K) @ DQ(W) + b`` of more than ``rank`` axes as Reshape, product, Reshape, in place.

    The reshapes move outwards over what works on each value or each row, and vanish where two of them meet. Sizes
    behind the first axis must be known.

    Args:
        model: a graph with pairs.
        rank: 2 for ``(N * ..., K)``, 3 for ``(N, ..., K)``.
        gemm: write the product and its bias as Gemm; needs rank 2.
    """
    graph = model.graph
    restored = []
    for node in list(graph):
        if node.op_type == "MatMul" and _rank(node.inputs[0]) > rank:
            made = _rewrite(graph, node, rank, gemm)
            if made is not None:
                restored.append(made)
    for node in restored:
        _sink(graph, node)
    for node in [n for n in graph if n.op_type == "Reshape"]:
        if node.graph is graph:
            _merge(graph, node)
    if not gemm:
        for node in [n for n in graph if n.op_type == "Reshape" and n.name and n.name.endswith(".rows")]:
            _hoist(graph, node)
        for node in [n for n in graph if n.op_type == "Reshape"]:
            if node.graph is graph:
                _merge(graph, node)


def _rank(value: ir.Value | None) -> int:
    return 0 if value is None or value.shape is None else len(value.shape)


def _sizes(value: ir.Value) -> list[int]:
    """Shape with -1 for what is unknown."""
    return [d if isinstance(d, int) else -1 for d in value.shape or ()]


def _rewrite(graph: ir.Graph, product: ir.Node, rank: int, gemm: bool) -> ir.Node | None:
    """Put the product on rows; returns the Reshape behind it."""
    x, weight = product.inputs[0], product.inputs[1]
    pair = x.producer() if x is not None else None
    if x is None or weight is None or pair is None or pair.op_type != "DequantizeLinear" or pair.inputs[0] is None:
        return None
    turn = weight.producer()
    transposed = turn is not None and turn.op_type == "Transpose"
    integers = turn.inputs[0] if turn is not None and transposed else weight
    source = integers.producer() if integers is not None else None
    sizes = _sizes(x)
    if source is None or source.op_type != "DequantizeLinear" or _rank(integers) != 2 or -1 in sizes[1:]:
        return None
    out = product.outputs[0]
    add, bias = _bias(out)
    end = product if add is None else add
    result = end.outputs[0]
    target = [-1, sizes[-1]] if rank == 2 else [sizes[0], math.prod(sizes[1:-1]), sizes[-1]]
    rows = _reshape(graph, pair.inputs[0], target, f"{product.name}.rows", before=product)
    again = ir.node("DequantizeLinear", [rows, *pair.inputs[1:]], name=f"{product.name}.rows.dequantize")
    graph.insert_before(product, again)
    _describe(again.outputs[0], f"{product.name}.rows.dequantize", rows.shape, ir.DataType.FLOAT)
    width = _sizes(integers)[0 if transposed else 1]  # type: ignore[arg-type]
    flat = [*target[:-1], width]
    if gemm:
        inputs = [again.outputs[0], integers, *([bias] if bias is not None else [])]
        made = ir.node("Gemm", inputs, attributes={"transB": 1} if transposed else None, name=product.name)
        product.name = f"{product.name}.product"
        graph.insert_before(end, made)
        _describe(made.outputs[0], f"{result.name}.flat", _shape(flat), ir.DataType.FLOAT)
        matrix = made.outputs[0]
    else:
        product.replace_input_with(0, again.outputs[0])
        out.shape, out.type = _shape(flat), ir.TensorType(ir.DataType.FLOAT)
        matrix = result
    shape = [*sizes[:-1], width]
    behind = _reshape(graph, matrix, shape, f"{product.name}.restored", after=end)
    if result.is_graph_output():
        graph.outputs[list(graph.outputs).index(result)] = behind
        behind.name, result.name = result.name, f"{result.name}.flat"
    node = behind.producer()
    assert node is not None
    ir.convenience.replace_all_uses_with(result, behind)
    node.replace_input_with(0, matrix)
    if gemm:  # nothing may read the pair any more but what still needs it
        graph.remove([end, product] if end is not product else [product], safe=True)
        if not pair.outputs[0].uses() and not pair.outputs[0].is_graph_output():
            graph.remove(pair, safe=True)
    else:
        result.shape = _shape(flat)
    return node


def _bias(out: ir.Value) -> tuple[ir.Node | None, ir.Value | None]:
    """The Add of a constant vector that alone reads ``out``, and that vector."""
    add = _only_user(out)
    if add is None or add.op_type != "Add":
        return None, None
    other = next((v for v in add.inputs if v is not out), None)
    if other is None or other.const_value is None or _rank(other) != 1:
        return None, None
    return add, other


def _sink(graph: ir.Graph, reshape: ir.Node) -> None:
    """Move a Reshape behind the operations on single values that alone read it."""
    while True:
        user = _only_user(reshape.outputs[0])
        if user is None or not _is_pointwise(user):
            return
        source, after = reshape.inputs[0], user.outputs[0]
        assert source is not None and reshape.outputs[0].shape is not None
        user.replace_input_with(0, source)
        before = after.shape
        after.shape = source.shape
        graph.remove(reshape)
        graph.insert_after(user, reshape)
        moved = reshape.outputs[0]
        moved.shape, moved.type = before, after.type
        if after.is_graph_output():
            graph.outputs[list(graph.outputs).index(after)] = moved
            moved.name, after.name = after.name, f"{after.name}.flat"
        ir.convenience.replace_all_uses_with(after, moved)
        reshape.replace_input_with(0, after)


def _hoist(graph: ir.Graph, reshape: ir.Node) -> None:
    """Move a Reshape before the operations on single values or last axes that it alone reads."""
    while True:
        source = reshape.inputs[0]
        node = source.producer() if source is not None else None
        if source is None or node is None or _only_user(source) is not reshape:
            return
        if not (_is_pointwise(node) or _is_row_norm(node)) or node.inputs[0] is None:
            return
        flat = reshape.outputs[0]
        ir.convenience.replace_all_uses_with(flat, source)
        first = node.inputs[0]
        reshape.replace_input_with(0, first)
        node.replace_input_with(0, flat)
        source.shape, flat.type = flat.shape, first.type
        graph.remove(reshape)
        graph.insert_before(node, reshape)


def _merge(graph: ir.Graph, reshape: ir.Node) -> None:
    """Drop the first of two Reshapes in a row, and both where they undo each other."""
    first = reshape.inputs[0].producer() if reshape.inputs[0] is not None else None
    out = reshape.outputs[0]
    if first is None or first.op_type != "Reshape" or _only_user(first.outputs[0]) is not reshape:
        return
    source = first.inputs[0]
    if source is None or not _is_constant(reshape.inputs[1]) or 0 in _constant(reshape.inputs[1]):
        return
    reshape.replace_input_with(0, source)
    graph.remove(first, safe=True)
    if _sizes(source) == _sizes(out) and _sizes(out).count(-1) <= 1 and not out.is_graph_output():
        ir.convenience.replace_all_uses_with(out, source)
        graph.remove(reshape, safe=True)


def _is_pointwise(node: ir.Node) -> bool:
    if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
        return all(_rank(v) == 0 for v in node.inputs[1:]) and not node.inputs[0].is_initializer()  # type: ignore[union-attr]
    return node.op_type in _POINTWISE


def _is_row_norm(node: ir.Node) -> bool:
    return node.op_type == "LayerNormalization" and node.attributes.get_int("axis", -1) in {
        -1,
        _rank(node.inputs[0]) - 1,
    }


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None


def _constant(value: ir.Value | None) -> list[int]:
    assert value is not None and value.const_value is not None
    return [int(v) for v in value.const_value.numpy()]


def _only_user(value: ir.Value) -> ir.Node | None:
    users = list(value.uses())
    return users[0].node if len(users) == 1 and not value.is_graph_output() else None


def _shape(sizes: list[int]) -> ir.Shape:
    return ir.Shape([None if s < 0 else s for s in sizes])


def _reshape(
    graph: ir.Graph,
    value: ir.Value,
    sizes: list[int],
    name: str,
    *,
    before: ir.Node | None = None,
    after: ir.Node | None = None,
) -> ir.Value:
    node = ir.node("Reshape", [value, constant(graph, f"{name}.shape", np.array(sizes, np.int64))], name=name)
    if before is not None:
        graph.insert_before(before, node)
    elif after is not None:
        graph.insert_after(after, node)
    kind = value.type.dtype if value.type is not None else ir.DataType.FLOAT
    _describe(node.outputs[0], name, _shape(sizes), kind)
    return node.outputs[0]


def _describe(value: ir.Value, name: str, shape: ir.Shape | None, kind: ir.DataType) -> None:
    value.name, value.shape, value.type = name, shape, ir.TensorType(kind)
