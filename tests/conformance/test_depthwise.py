"""Inverted residual of MobileNetV2 (depthwise, ReLU6) and grouped convolutions."""

from __future__ import annotations

from torch import nn

from tests.conformance.blocks import IMAGE, conv_bn


class _InvertedResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.expand = conv_bn(8, 8), conv_bn(8, 24, 1, act=nn.ReLU6())
        self.depthwise, self.project = conv_bn(24, 24, groups=24, act=nn.ReLU6()), conv_bn(24, 8, 1)
        self.head = conv_bn(8, 8, 1, act=nn.ReLU6())

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.project(self.depthwise(self.expand(x))))


def test_inverted_residual(tester):
    (
        tester(_InvertedResidual, IMAGE, batches=(1,))
        .check_points(openvino=(5, 5), onnxruntime=(7, 5))
        .check_int8({"conv2d": 4, "depthwise_conv2d": 1, "add": 1})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_grouped(tester):
    (
        tester(lambda: nn.Sequential(conv_bn(8, 16, groups=4, act=nn.ReLU()), conv_bn(16, 8, 1)), IMAGE)
        .check_points(openvino=(2, 2), onnxruntime=(3, 2))
        .check_int8({"conv2d": 2})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )
