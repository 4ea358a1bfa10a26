"""Squeeze and excitation: global pool, two 1x1 convolutions, a gate and a multiplication over the image."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import nn

from tests.conformance.blocks import IMAGE, conv_bn


class _ByHand(nn.Module):
    def forward(self, x):
        return F.relu6(x + 3) / 6


class _SE(nn.Module):
    def __init__(self, gate):
        super().__init__()
        self.a, self.head, self.gate = conv_bn(8, 16, act=nn.ReLU()), conv_bn(16, 8), gate()
        self.reduce, self.expand = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)

    def forward(self, x):
        x = self.a(x)
        return self.head(x * self.gate(self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1))))))


def test_sigmoid_gate(tester):
    (
        tester(lambda: _SE(nn.Sigmoid), IMAGE, batches=(1,))
        .check_points(openvino=(6, 4), onnxruntime=(8, 4))
        .check_int8(
            {"conv2d": 4, "global_avg_pool": 1, "mul": 1},
            onnxruntime={"conv2d": 4, "global_avg_pool": 1, "mul": 1, "sigmoid": 1},
        )
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


@pytest.mark.parametrize("gate", [nn.Hardsigmoid, _ByHand])
def test_hard_sigmoid_gate(tester, gate):
    """It runs in the convolution before it; where it does not, the multiplication behind it is float."""
    tested = tester(lambda: _SE(gate), IMAGE).check_points(openvino=(6, 4), onnxruntime=(7, 4))
    layers = {"conv2d": 4, "global_avg_pool": 1}
    inside = {"openvino", "onnxruntime", "tensorrt"}
    tested.check_int8(layers, **{name: {**layers, "mul": 1} for name in inside}).run_and_compare()
    if tested.backend.name not in inside:
        assert tested.float_reasons["mul"]
