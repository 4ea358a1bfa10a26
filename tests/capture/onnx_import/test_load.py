"""Sizes that a file leaves open or fixes, names, and what torch.export makes of the module."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.capture.export import capture
from razordeploy.capture.graph import module_path
from razordeploy.capture.onnx_import.load import import_onnx
from razordeploy.errors import ModelError
from tests.capture.onnx_import.conftest import INT64, node, random, write

CONV = {"w": random(4, 3, 3, 3)}


def conv(tmp_path, shape, **options):
    return write(tmp_path / "m.onnx", [node("Conv", ["x", "w"], **options)], {"x": shape}, CONV)


@pytest.mark.parametrize(("shape", "batch", "dynamic"), [(("N", 3, 8, 8), 2, True), ((1, 3, 8, 8), 1, False),
                                                         ((4, 3, 8, 8), 4, False)])  # fmt: skip
def test_batch_is_as_the_file_has_it(tmp_path, shape, batch, dynamic):
    module, inputs = import_onnx(conv(tmp_path, shape))
    assert inputs[0].shape == (batch, 3, 8, 8)
    captured = capture(module, inputs)
    assert captured.dynamic_batch is dynamic
    if dynamic:
        assert captured.graph_module(torch.randn(7, 3, 8, 8)).shape == (7, 4, 6, 6)
    else:
        with pytest.raises(ModelError, match=rf"input 'x' has shape \({batch}, 3, 8, 8\), got \(9, 3, 8, 8\)"):
            module(torch.randn(9, 3, 8, 8))


def test_a_batch_that_the_nodes_fix(tmp_path):
    nodes = [node("Conv", ["x", "w"]), node("Reshape", ["conv_out", "to"]), node("Gemm", ["reshape_out", "g"])]
    constants = {**CONV, "to": np.array([1, 144]), "g": random(144, 5)}
    module, inputs = import_onnx(write(tmp_path / "m.onnx", nodes, {"x": ("N", 3, 8, 8)}, constants))
    assert inputs[0].shape == (1, 3, 8, 8)
    assert not capture(module, inputs).dynamic_batch


class TestOpenSizes:
    def test_are_asked_for(self, tmp_path):
        path = conv(tmp_path, ("N", 3, "H", "W"))
        with pytest.raises(ModelError, match=r"input 'x' leaves the size of axis 2, 3 open; give example_inputs, or"):
            import_onnx(path)
        _, inputs = import_onnx(path, shapes=[(3, 9, 7)])
        assert inputs[0].shape == (2, 3, 9, 7)
        _, inputs = import_onnx(path, inputs=[torch.randn(5, 3, 6, 6)])
        assert inputs[0].shape == (5, 3, 6, 6)

    def test_are_not_the_fixed_ones(self, tmp_path):
        path = conv(tmp_path, ("N", 3, "H", 8))
        with pytest.raises(ModelError, match=r"input 'x' has shape \(3, \?, 8\), got \(3, 9, 9\)"):
            import_onnx(path, shapes=[(3, 9, 9)])
        with pytest.raises(ModelError, match="takes 1 inputs, 2 input shapes are given"):
            import_onnx(path, shapes=[(3, 9, 8), (3, 9, 8)])
        with pytest.raises(ModelError, match=r"takes 1 inputs \(x\), got 2"):
            import_onnx(path, inputs=[torch.zeros(1, 3, 9, 8)] * 2)


def test_integers_are_zeros_and_ones(tmp_path):
    path = write(tmp_path / "m.onnx", [node("Gather", ["w", "x"])], {"x": ("N", 5)}, {"w": random(9, 3)},
                 types={"x": INT64})  # fmt: skip
    _, (x,) = import_onnx(path)
    assert x.dtype == torch.int64
    assert set(x.unique().tolist()) == {0, 1}


class TestNames:
    @pytest.fixture
    def captured(self, tmp_path):
        nodes = [
            node("Conv", ["0", "conv1.weight", "conv1.bias"], "2", name="/layer.0/conv1/Conv"),
            node("Relu", ["2"], "/layer.0/act/Relu_output_0", name=""),
            node("Add", ["/layer.0/act/Relu_output_0", "forward"], "3", name="/layer.0/act/Relu"),
            node("Add", ["3", "3"], "out", name="sum"),
        ]
        constants = {"conv1.weight": random(4, 3, 3, 3), "conv1.bias": random(4), "forward": random(6)}
        module, inputs = import_onnx(write(tmp_path / "m.onnx", nodes, {"0": ("N", 3, 8, 8)}, constants))
        return module, capture(module, inputs)

    def test_layers_are_called_what_the_nodes_are(self, captured):
        paths = [module_path(n) for n in captured[1].graph.nodes if n.op == "call_function"]
        assert paths == ["/layer.0/conv1/Conv", "/layer.0/act/Relu_2", "/layer.0/act/Relu", "sum"]

    def test_parameters_are_called_what_the_initializers_are(self, captured):
        assert {n for n, _ in captured[0].named_parameters()} == {"conv1_weight", "conv1_bias", "p_forward"}
        attributes = [n.target for n in captured[1].graph.nodes if n.op == "get_attr"]
        assert set(attributes) == {"conv1_weight", "conv1_bias", "p_forward"}

    def test_inputs_and_outputs(self, captured):
        assert captured[0].input_names == ("0",)
        assert captured[0].output_names == ("out",)


def test_two_inputs_and_three_outputs(tmp_path):
    nodes = [node("Conv", ["x", "w"]), node("Mul", ["conv_out", "gain"]), node("Relu", ["mul_out"])]
    path = write(tmp_path / "m.onnx", nodes, {"x": ("N", 3, 8, 8), "gain": ("N", 1, 1, 1)}, CONV,
                 outputs=["relu_out", "conv_out", "w"])  # fmt: skip
    module, inputs = import_onnx(path)
    captured = capture(module, inputs)
    assert captured.dynamic_batch
    found = captured.graph_module(torch.randn(5, 3, 8, 8), torch.ones(5, 1, 1, 1))
    assert [tuple(y.shape) for y in found] == [(5, 4, 6, 6), (5, 4, 6, 6), (4, 3, 3, 3)]
    torch.testing.assert_close(found[0], found[1].relu())
