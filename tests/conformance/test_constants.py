"""Additions of a constant: position embeddings and per-pixel offsets stay float; what lies around them is int8."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.conformance.blocks import IMAGE, conv_bn


class _PositionEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.fc = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 16)
        self.positions = nn.Parameter(torch.randn(1, 16, 16))

    def forward(self, x):
        return self.fc(self.patches(x).flatten(2).transpose(1, 2) + self.positions)


class _Offset(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.head = conv_bn(8, 8, act=nn.ReLU()), conv_bn(8, 8)
        self.register_buffer("offset", torch.randn(1, 8, 8, 8))

    def forward(self, x):
        return self.head(self.a(x) + self.offset)


class _Factors(nn.Module):
    """A vector of factors, some of them negative, before what is quantized."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.layer, self.head = kind, nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
        self.norms = nn.ModuleDict({"group": nn.GroupNorm(2, 8), "batch": nn.BatchNorm2d(8)})
        self.factors = nn.Parameter(torch.tensor([1.0, -0.5, 2.0, -1.5, 0.7, -0.2, 1.1, -3.0]).view(1, 8, 1, 1))
        for norm in self.norms.values():
            norm.weight.data = self.factors.data.flatten().clone()

    def forward(self, x):
        if self.kind == "vector":
            return self.head(x.mean((2, 3)) * self.factors.flatten())
        if self.kind in self.norms:
            return self.layer(self.norms[self.kind](x))
        return self.layer(x / self.factors if self.kind == "divided" else x * self.factors)


@pytest.mark.parametrize("kind", ["image", "divided", "vector", "group", "batch"])
def test_negative_factors(tester, kind):
    """OpenVINO merges factors and pair into one operation, which must not be the wrong one."""
    tester(lambda: _Factors(kind), IMAGE).check_int8({"linear" if kind == "vector" else "conv2d": 1}).run_and_compare()


def test_position_embedding(tester):
    tested = tester(_PositionEmbedding, (2, 3, 16, 16), batches=(1,)).check_points(openvino=(2, 2), onnxruntime=(3, 2))
    tested.check_int8({"conv2d": 1, "linear": 1}).run_and_compare()
    if tested.backend.name in {"openvino", "onnxruntime"}:
        assert tested.float_reasons["add"] == "one operand is a constant"


def test_buffer(tester):
    (
        tester(_Offset, IMAGE)
        .check_points(openvino=(2, 2), onnxruntime=(4, 2))
        .check_int8({"conv2d": 2})
        .run_and_compare()
    )
