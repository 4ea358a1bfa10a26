"""Concatenations: of convolutions, with the network's input, in a dense chain, before a batch norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.conformance.blocks import IMAGE, conv_bn


class _Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv_bn(8, 8, act=nn.ReLU()), conv_bn(8, 8, 1, act=nn.ReLU()), conv_bn(16, 8)

    def forward(self, x):
        return self.head(torch.cat([self.a(x), self.b(x)], 1))


class _WithInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.head = conv_bn(8, 8, act=nn.ReLU()), conv_bn(16, 8)

    def forward(self, x):
        return self.head(torch.cat([self.a(x), x], 1))


class _Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv_bn(8, 4, act=nn.ReLU()), conv_bn(12, 4, act=nn.ReLU())
        self.c, self.head = conv_bn(16, 4, act=nn.ReLU()), nn.Conv2d(20, 8, 1)

    def forward(self, x):
        values = [x]
        for layer in (self.a, self.b, self.c):
            values.append(layer(torch.cat(values, 1)))
        return self.head(torch.cat(values, 1))


class _BeforeNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv_bn(8, 8, act=nn.ReLU()), conv_bn(8, 8, 1)
        self.norm, self.head = nn.BatchNorm2d(16), conv_bn(16, 8)

    def forward(self, x):
        return self.head(F.relu(self.norm(torch.cat([self.a(x), self.b(x)], 1))))


def test_two_convolutions(tester):
    tested = tester(_Two, IMAGE, batches=(1,)).check_points(openvino=(3, 3), onnxruntime=(5, 3))
    tested.check_int8({"conv2d": 3}, onnxruntime={"conv2d": 3, "cat": 1})
    tested.check_float_kernels(openvino=set(), onnxruntime=set()).run_and_compare()
    if tested.backend.name == "openvino":
        assert len({p.group for p in tested.plan.points if p.users == ("cat",)}) == 1, "the copy needs one grid"


def test_with_the_input(tester):
    (
        tester(_WithInput, IMAGE)
        .check_points(openvino=(2, 2), onnxruntime=(4, 2))
        .check_int8({"conv2d": 2}, onnxruntime={"conv2d": 2, "cat": 1})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_dense_chain(tester):
    (
        tester(_Dense, IMAGE)
        .check_points(openvino=(4, 4), onnxruntime=(8, 4))
        .check_int8({"conv2d": 4}, onnxruntime={"conv2d": 4, "cat": 3})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_batch_norm_behind(tester):
    """It cannot be folded: a multiplication and an addition per channel, in float."""
    (
        tester(_BeforeNorm, IMAGE)
        .check_points(openvino=(2, 3), onnxruntime=(5, 3))
        .check_int8({"conv2d": 3})
        .run_and_compare()
    )
