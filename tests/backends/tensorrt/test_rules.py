"""Every rule finds the graph that breaks it, and nothing in one that keeps them all."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from razordeploy.backends.tensorrt.rules import check

_FLOAT = ir.TensorType(ir.DataType.FLOAT)


class Graph:
    """Builds a small graph node by node."""

    def __init__(self, *shape: int):
        self.x = ir.Value(name="x", shape=ir.Shape(shape), type=_FLOAT)
        self.graph = ir.Graph([self.x], [], nodes=[], opset_imports={"": 20}, name="g")

    def constant(self, name, value):
        tensor = ir.tensor(value, name=name)
        made = ir.Value(name=name, shape=ir.Shape(value.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(made)
        return made

    def op(self, op_type, *inputs, name=None, domain="", **attributes):
        node = ir.node(op_type, inputs, attributes=attributes or None, name=name or op_type.lower(), domain=domain)
        self.graph.append(node)
        node.outputs[0].name, node.outputs[0].type = f"{node.name}.out", _FLOAT
        return node.outputs[0]

    def pair(self, value, name, scale=0.1, zero=0, dtype=np.int8):
        grid = [self.constant(f"{name}.s", np.float32(scale)), self.constant(f"{name}.z", np.array(zero, dtype))]
        return self.op("DequantizeLinear", self.op("QuantizeLinear", value, *grid, name=f"{name}.q"), *grid, name=name)

    def weight(self, name, *shape, axis=0, low=-127, scales=None):
        values = np.resize(np.arange(low, 127), shape).astype(np.int8)
        count = shape[axis] if scales is None else scales
        scale = self.constant(f"{name}.s", np.full(count, 0.1, np.float32))
        zero = self.constant(f"{name}.z", np.zeros(count, np.int8))
        return self.op("DequantizeLinear", self.constant(f"{name}.v", values), scale, zero, name=name, axis=axis)

    def conv(self, value, name="conv", **options):
        return self.op("Conv", value, self.weight(f"{name}.w", 16, 16, 1, 1, **options), name=name)

    def findings(self, *outputs):
        self.graph.outputs.extend(outputs)
        return check(ir.Model(self.graph, ir_version=10))

    def rules(self, *outputs):
        return {(f.rule, f.severity) for f in self.findings(*outputs)}


def image():
    return Graph(1, 16, 8, 8)


def test_nothing_in_a_residual_block_that_keeps_the_rules():
    g = image()
    x = g.pair(g.x, "in")
    left = g.op("Relu", g.conv(x, "a"))
    added = g.op("Add", g.conv(g.pair(left, "mid"), "b"), x, name="sum")
    pooled = g.op("MaxPool", g.op("Relu", added, name="relu2"), kernel_shape=[2, 2])
    assert g.findings(g.conv(g.pair(pooled, "out"), "c")) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"zero": 3}, "expected zero point 0, got 3"),
        ({"dtype": np.uint8}, "expected int8, got uint8"),
        ({"scale": np.inf}, "not a positive number"),
        ({"scale": -1.0}, "not a positive number"),
        ({"scale": np.full(16, 0.1)}, "an activation has 16 scales"),
    ],
)
def test_grid(options, words):
    g = image()
    found = g.findings(g.conv(g.pair(g.x, "in", **options)))
    assert {(f.rule, f.severity) for f in found} == {("grid", "error")}
    assert any(words in f.message for f in found)


def test_a_pair_without_zero_point_is_unsigned():
    g = image()
    scale = g.constant("s", np.float32(0.1))
    out = g.op("DequantizeLinear", g.op("QuantizeLinear", g.x, scale), scale)
    assert ("grid", "error") in g.rules(g.conv(out))


@pytest.mark.parametrize("options", [{"low": -128}, {"axis": 1}])
def test_weight(options):
    g = image()
    assert g.rules(g.conv(g.pair(g.x, "in"), **options)) == {("weight", "error")}


@pytest.mark.parametrize(
    ("transposed", "attributes", "axis"), [(False, {}, 1), (True, {}, 0), (False, {"transB": 1}, 0)]
)
def test_scales_lie_along_the_output_channels_of_a_product(transposed, attributes, axis):
    for stored, expected in ((axis, set()), (1 - axis, {("weight", "error")})):
        g = Graph(4, 32)
        weight = g.weight("w", 32, 32, axis=stored)
        weight = g.op("Transpose", weight, perm=[1, 0]) if transposed else weight
        kind = "Gemm" if attributes else "MatMul"
        assert g.rules(g.op(kind, g.pair(g.x, "in"), weight, **attributes)) == expected


def test_transposed_convolution_has_them_along_axis_1():
    g = image()
    out = g.op("ConvTranspose", g.pair(g.x, "in"), g.weight("w", 16, 24, 2, 2, axis=1))
    assert g.rules(out) == set()


def test_float_weight():
    g = image()
    weight = g.constant("w", np.ones((16, 16, 1, 1), np.float32))
    assert g.rules(g.op("Conv", g.pair(g.x, "in"), weight)) == {("weight", "error")}


def test_float_input():
    g = image()
    assert g.rules(g.conv(g.x)) == {("input", "error")}


@pytest.mark.parametrize("kind", ["Relu", "BatchNormalization", "Clip"])
def test_between_a_convolution_and_what_its_kernel_does(kind):
    g = image()
    inside = g.pair(g.conv(g.pair(g.x, "in")), "mid")
    assert ("between", "error") in g.rules(g.op(kind, inside))


def test_pairs_on_both_branches_of_a_sum():
    g = image()
    x = g.pair(g.x, "in")
    found = g.findings(g.op("Add", g.pair(g.conv(x), "own"), x, name="sum"))
    assert [(f.node, f.rule, f.severity) for f in found] == [("sum", "residual", "error")]
    assert "conv takes none" in found[0].message


def test_a_branch_that_others_read_too_keeps_its_pair():
    g = image()
    x = g.pair(g.x, "in")
    own = g.pair(g.conv(x), "own")
    assert g.rules(g.op("Add", own, x), g.conv(own, "other")) == set()


def test_float_shortcut():
    g = image()
    added = g.op("Add", g.conv(g.pair(g.x, "in")), g.x)
    assert g.rules(g.conv(g.pair(added, "next"), "c")) == {("residual", "note")}


def test_grids_of_a_concatenation():
    for scales, expected in (((0.1, 0.1), set()), ((0.1, 0.2), {("concat", "note")})):
        g = image()
        parts = [g.pair(g.x, f"part{i}", scale=scale) for i, scale in enumerate(scales)]
        joined = g.op("Concat", *parts, axis=1)
        out = g.op("MaxPool", joined, kernel_shape=[2, 2])
        assert g.rules(out) == expected


def test_pairs_that_serve_nobody():
    g = image()
    assert g.rules(g.op("Softmax", g.pair(g.x, "in"))) == {("reader", "note")}
    g = image()
    assert g.rules(g.pair(g.x, "in")) == {("reader", "note")}


def test_small_product():
    g = Graph(4, 8)
    assert g.rules(g.op("MatMul", g.pair(g.x, "in"), g.weight("w", 8, 32, axis=1))) == {("size", "note")}


def test_operators_of_others():
    g = image()
    assert g.rules(g.op("QuickGelu", g.x, domain="com.microsoft")) == {("operator", "error")}
