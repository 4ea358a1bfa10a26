"""Concatenations: of convolutions, with the network's input, in a dense chain, before a batch norm."""

from __future__ import annotations

from collections import Counter

import pytest
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


class _Tokens(nn.Module):
    """Parts of sequences, one of a layer or none, put together before a layer."""

    def __init__(self, layer_first, head):
        super().__init__()
        self.layer_first, self.layer, self.head = layer_first, nn.Linear(8, 8), head

    def forward(self, x):
        first = self.layer(x) if self.layer_first else x.sin()
        y = torch.cat([first[:, :6], x[:, 6:]], 1)
        return self.head(y) if isinstance(self.head, nn.Linear) else self.head(y.transpose(1, 2))


@pytest.mark.parametrize("layer_first", [True, False], ids=["of a layer", "of floats"])
@pytest.mark.parametrize("head", ["linear", "conv1d"])
def test_along_a_sequence(tester, layer_first, head):
    """OpenVINO refuses a layer behind it whose grid differs, or might differ, from position to position."""
    heads = {"linear": nn.Linear(8, 4), "conv1d": nn.Conv1d(8, 4, 1)}
    tested = tester(lambda: _Tokens(layer_first, heads[head]), (2, 12, 8), batches=(1,))
    expected = Counter([head, *["linear"] * layer_first])
    tested.check_int8(expected).run_and_compare()
