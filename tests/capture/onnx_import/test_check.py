"""An import that is not what the file says is refused, at the node."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from razordeploy.capture.onnx_import.check import error
from razordeploy.capture.onnx_import.load import import_onnx
from razordeploy.capture.onnx_import.ops import table
from razordeploy.errors import ModelError
from tests.capture.onnx_import.conftest import node, random, write


@pytest.fixture
def path(tmp_path):
    """conv -> sigmoid -> shape arithmetic -> matmul, with a relu on the side."""
    nodes = [
        node("Conv", ["x", "w"]),
        node("Sigmoid", ["conv_out"]),
        node("Shape", ["sigmoid_out"]),
        node("Slice", ["shape_out", "zero", "one"]),
        node("Concat", ["slice_out", "rest"], axis=0),
        node("Reshape", ["sigmoid_out", "concat_out"]),
        node("MatMul", ["reshape_out", "m"]),
        node("Relu", ["matmul_out"]),
    ]
    constants = {"w": random(2, 3, 3, 3), "zero": np.array([0]), "one": np.array([1]), "rest": np.array([-1])}
    return write(tmp_path / "m.onnx", nodes, {"x": ("N", 3, 4, 4)}, {**constants, "m": random(8, 5)})


@pytest.mark.parametrize(("kind", "name"), [("Sigmoid", "sigmoid"), ("Relu", "relu"), ("MatMul", "matmul")])
@pytest.mark.parametrize("off", [1e-2, 10.0])
def test_the_first_node_that_differs_is_named(path, monkeypatch, kind, name, off):
    import_onnx(path)
    rule = table.RULES[kind]
    wrong = dataclasses.replace(rule, run=lambda op, *inputs: rule.run(op, *inputs) * (1 + off))
    monkeypatch.setitem(table.RULES, kind, wrong)
    with pytest.raises(ModelError) as caught:
        import_onnx(path)
    assert f"first at node '{name}' ({kind}), which is off by" in str(caught.value)
    assert "razordeploy convert" in str(caught.value)


def test_what_the_model_itself_amplifies_passes(tmp_path, monkeypatch):
    """Every operation is right to 1e-6; an exponential makes 1e-3 of it."""
    nodes = [node("Relu", ["x"]), node("Mul", ["relu_out", "k"]), node("Exp", ["mul_out"])]
    path = write(tmp_path / "m.onnx", nodes, {"x": ("N", 3)}, {"k": np.float32(20)})
    rule = table.RULES["Relu"]
    nudged = dataclasses.replace(rule, run=lambda op, x: rule.run(op, x) * (1 + 5e-5))
    monkeypatch.setitem(table.RULES, "Relu", nudged)
    module, _ = import_onnx(path)
    with torch.no_grad():
        assert module(torch.ones(1, 3)).isfinite().all()


@pytest.mark.parametrize(("off", "passes"), [(1e-5, True), (1e-3, False)])
def test_bound(path, monkeypatch, off, passes):
    rule = table.RULES["MatMul"]
    wrong = dataclasses.replace(rule, run=lambda op, *inputs: rule.run(op, *inputs) * (1 + off))
    monkeypatch.setitem(table.RULES, "MatMul", wrong)
    if passes:
        import_onnx(path)
    else:
        with pytest.raises(ModelError, match=r"differs from ONNX Runtime by 1\.0e-03 of the output's range, first at"):
            import_onnx(path)


@pytest.mark.parametrize(
    ("found", "expected", "off"),
    [
        (np.float32([1, 2]), np.float32([1, 2]), 0.0),
        (np.float32([1, 2.2]), np.float32([1, 2]), 0.1),
        (np.float32([np.nan, 1]), np.float32([np.nan, 1]), 0.0),
        (np.float32([np.nan, 1]), np.float32([0, 1]), np.inf),
        (np.float32([1]), np.float32([1, 2]), np.inf),
        (np.int64([1]), np.float32([1]), np.inf),
        (np.int64([1, 2]), np.int64([1, 3]), np.inf),
        (np.arange(2000), np.r_[np.arange(1999), 0], 0.0),
        (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), 0.0),
    ],
)
def test_error(found, expected, off):
    assert error(found, expected) == pytest.approx(off, rel=1e-5)
