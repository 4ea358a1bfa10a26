"""Several inputs and outputs, as tuples and as dicts."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import nn

from tests.conformance.blocks import IMAGE, conv_bn


class _TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv_bn(8, 8), conv_bn(8, 8), conv_bn(8, 8)

    def forward(self, x, y):
        return self.head(F.relu(self.a(x) + self.b(y)))


class _DictInput(_TwoInputs):
    def forward(self, inputs):
        return super().forward(inputs["x"], inputs["y"])


class _TwoOutputs(nn.Module):
    def __init__(self, nest):
        super().__init__()
        self.a, self.b, self.c = conv_bn(8, 8, act=nn.ReLU()), conv_bn(8, 8, act=nn.ReLU()), conv_bn(8, 8)
        self.nest = nest

    def forward(self, x):
        x = self.a(x)
        return self.nest(x, self.b(x), self.c(x))


@pytest.mark.parametrize(("model", "inputs"), [(_TwoInputs, (IMAGE, IMAGE)), (_DictInput, ({"x": IMAGE, "y": IMAGE},))])
def test_inputs(tester, model, inputs):
    (
        tester(model, *inputs, batches=(1, 3))
        .check_points(openvino=(4, 3), onnxruntime=(6, 3))
        .check_int8({"conv2d": 3, "add": 1})
        .run_and_compare()
    )


@pytest.mark.parametrize("nest", [lambda *v: v, lambda a, b, c: {"a": a, "rest": [b, c]}], ids=["tuple", "dict"])
def test_outputs(tester, nest):
    (
        tester(lambda: _TwoOutputs(nest), IMAGE, batches=(1,))
        .check_points(openvino=(2, 3), onnxruntime=(4, 3))
        .check_int8({"conv2d": 3})
        .run_and_compare()
    )


class _Repeats(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = conv_bn(8, 8, act=nn.ReLU())

    def forward(self, x):
        y = self.a(x)
        return y, y, x


def test_an_output_twice_and_an_input_as_output(tester):
    tester(_Repeats, IMAGE).check_points(openvino=(1, 1), onnxruntime=(2, 1)).check_int8(
        {"conv2d": 1}
    ).run_and_compare()
