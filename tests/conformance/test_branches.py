"""Parallel branches that are one convolution when deployed: RepVGG, MobileOne, two convolutions that are added."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from tests.conformance.blocks import IMAGE, conv_bn


class _RepVGG(nn.Module):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__()
        self.dense = conv_bn(channels_in, channels_out, stride=stride)
        self.point = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False))
        self.norm = nn.BatchNorm2d(channels_in) if (channels_in, stride) == (channels_out, 1) else None

    def forward(self, x):
        return F.relu(self.dense(x) + self.point(x) + (0 if self.norm is None else self.norm(x)))


class _MobileOne(nn.Module):
    """Two depthwise convolutions, one of one tap and a norm, added in place."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv_bn(8, 16, act=nn.ReLU()), conv_bn(16, 8, 1)
        self.norm, self.scale = nn.BatchNorm2d(16), nn.Conv2d(16, 16, 1, groups=16)
        self.convs = nn.ModuleList(conv_bn(16, 16, groups=16) for _ in range(2))

    def forward(self, x):
        x = self.stem(x)
        out = self.norm(x)
        out += self.scale(x)
        for conv in self.convs:
            out += conv(x)
        return self.head(F.relu(out))


class _BesideResidual(nn.Module):
    """The branches become one; the value that comes round them is added."""

    def __init__(self):
        super().__init__()
        self.stem, self.a = conv_bn(8, 8, act=nn.ReLU()), conv_bn(8, 8, act=nn.ReLU())
        self.b, self.c, self.head = conv_bn(8, 8), conv_bn(8, 8, 1), conv_bn(8, 8)

    def forward(self, x):
        x = self.stem(x)
        y = self.a(x)
        return self.head(F.relu(x + self.b(y) + self.c(y)))


def test_repvgg(tester):
    (
        tester(lambda: nn.Sequential(_RepVGG(8, 8), _RepVGG(8, 16, 2), _RepVGG(16, 16)), IMAGE, batches=(1, 3))
        .check_points(openvino=(3, 3), onnxruntime=(4, 3))
        .check_int8({"conv2d": 3})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_mobileone(tester):
    (
        tester(_MobileOne, IMAGE, batches=(1,))
        .check_points(openvino=(3, 3), onnxruntime=(4, 3))
        .check_int8({"conv2d": 2, "depthwise_conv2d": 1})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_beside_a_residual(tester):
    (
        tester(_BesideResidual, IMAGE, batches=(1,))
        .check_points(openvino=(4, 4), onnxruntime=(6, 4))
        .check_int8({"conv2d": 4, "add": 1})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )
