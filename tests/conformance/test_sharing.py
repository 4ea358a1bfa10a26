"""A module called twice, and one weight under two layers: stored and quantized once."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from tests.conformance.blocks import IMAGE, conv_bn


class _Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = conv_bn(8, 8, act=nn.ReLU())

    def forward(self, x):
        return self.a(self.a(x))


class _Weight(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(F.relu(self.a(x)))


def test_module_called_twice(tester):
    tester(_Module, IMAGE).check_points(openvino=(2, 2), onnxruntime=(3, 2)).check_int8({"conv2d": 2}).run_and_compare()


def test_shared_weight(tester):
    tester(_Weight, IMAGE).check_points(openvino=(2, 1), onnxruntime=(3, 1)).check_int8({"conv2d": 2}).run_and_compare()
