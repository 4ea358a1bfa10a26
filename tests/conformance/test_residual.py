"""Residual additions: identity and downsampling shortcuts, the network's input, its output, in place."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from tests.conformance.blocks import IMAGE, conv_bn


class _Identity(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a = conv_bn(8, 8, act=nn.ReLU()), conv_bn(8, 8, act=nn.ReLU())
        self.b, self.head = conv_bn(8, 8), conv_bn(8, 8)

    def forward(self, x):
        x = self.stem(x)
        return self.head(F.relu(self.b(self.a(x)) + x))


class _Downsample(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a = conv_bn(8, 8, act=nn.ReLU()), conv_bn(8, 16, stride=2, act=nn.ReLU())
        self.b, self.shortcut, self.head = conv_bn(16, 16), conv_bn(8, 16, 1, stride=2), conv_bn(16, 8)

    def forward(self, x):
        x = self.stem(x)
        return self.head(F.relu(self.b(self.a(x)) + self.shortcut(x)))


class _StridedAlone(nn.Module):
    """Strided 1x1 convolutions alone read the first sum, as in ResNets whose blocks stride in their first layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.a = conv_bn(8, 8, act=nn.ReLU()), conv_bn(8, 8)
        self.b, self.c = conv_bn(8, 16, 1, stride=2, act=nn.ReLU()), conv_bn(16, 16)
        self.shortcut, self.head = conv_bn(8, 16, 1, stride=2), conv_bn(16, 8)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(self.a(x) + x)
        return self.head(F.relu(self.c(self.b(x)) + self.shortcut(x)))


class _ToInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.head = conv_bn(8, 8), conv_bn(8, 8)

    def forward(self, x):
        return self.head(F.relu(self.a(x) + x))


class _AtOutput(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a = conv_bn(8, 8, act=nn.ReLU()), conv_bn(8, 8)

    def forward(self, x):
        x = self.stem(x)
        return F.relu(self.a(x) + x)


class _InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv_bn(8, 8, act=nn.ReLU(inplace=True)), conv_bn(8, 8), conv_bn(8, 8)

    def forward(self, x):
        x = self.a(x)
        y = self.b(x)
        y += x
        return self.head(F.relu(y, inplace=True))


class _Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv_bn(8, 8), conv_bn(8, 8), conv_bn(8, 8)

    def forward(self, x):
        x = self.a(x)
        x = F.relu(x + self.b(x))
        return self.head(x + x)


def test_identity(tester):
    (
        tester(_Identity, IMAGE, batches=(1, 3))
        .check_points(openvino=(4, 4), onnxruntime=(6, 4))
        .check_int8({"conv2d": 4, "add": 1})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_downsample(tester):
    (
        tester(_Downsample, IMAGE, batches=(1,))
        .check_points(openvino=(5, 5), onnxruntime=(7, 5))
        .check_int8({"conv2d": 5, "add": 1})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_strided_alone(tester):
    (
        tester(_StridedAlone, IMAGE, batches=(1, 3))
        .check_int8({"conv2d": 6, "add": 2})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_to_the_input(tester):
    (
        tester(_ToInput, IMAGE)
        .check_points(openvino=(2, 2), onnxruntime=(4, 2))
        .check_int8({"conv2d": 2, "add": 1})
        .run_and_compare()
    )


def test_at_the_output(tester):
    """ONNX Runtime's addition needs a quantized output, which nothing here reads."""
    (
        tester(_AtOutput, IMAGE)
        .check_points(openvino=(2, 2), onnxruntime=(3, 2))
        .check_int8({"conv2d": 2, "add": 1}, onnxruntime={"conv2d": 2})
        .run_and_compare()
    )


def test_in_place(tester):
    (
        tester(_InPlace, IMAGE)
        .check_points(openvino=(3, 3), onnxruntime=(5, 3))
        .check_int8({"conv2d": 3, "add": 1})
        .run_and_compare()
    )


def test_one_value_twice(tester):
    (
        tester(_Twice, IMAGE)
        .check_points(openvino=(4, 3), onnxruntime=(6, 3))
        .check_int8({"conv2d": 3, "add": 2})
        .run_and_compare()
    )
