"""Linear layers on vectors and sequences, and products with a constant matrix, which are linear layers too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn


class _Products(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(16, 8)), nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return F.relu(x @ self.a) @ self.b


class _Addmm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(16, 8)), nn.Parameter(torch.randn(8))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(F.relu(torch.addmm(self.bias, x, self.weight)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 16), (2, 5, 16)], ids=["vector", "sequence"])
def test_linear(tester, bias, shape):
    (
        tester(lambda: nn.Sequential(nn.Linear(16, 32, bias), nn.ReLU(), nn.Linear(32, 8, bias)), shape, batches=(1,))
        .check_points(openvino=(2, 2), onnxruntime=(2, 2), torch_native=(2, 2), academic=(2, 2))
        .check_int8({"linear": 2})
        .run_and_compare()
    )


@pytest.mark.parametrize("model", [_Products, _Addmm])
def test_constant_matrix(tester, model):
    (
        tester(model, (4, 16))
        .check_points(openvino=(2, 2), onnxruntime=(2, 2))
        .check_int8({"linear": 2})
        .run_and_compare()
    )


@pytest.mark.parametrize("shape", [(4, 16), (2, 5, 16)], ids=["vector", "sequence"])
@pytest.mark.parametrize("bound", [F.relu, F.relu6])
def test_float_reader_behind_a_bound(tester, shape, bound):
    """ONNX Runtime runs a layer in float whose bound does not end in a pair."""
    tested = tester(lambda: _Read(bound), shape, batches=(1,)).run_and_compare()
    tested.check_int8({"linear": 1})


class _Read(nn.Module):
    def __init__(self, bound):
        super().__init__()
        self.layer, self.bound = nn.Linear(16, 8), bound

    def forward(self, x):
        return self.bound(self.layer(x)).softmax(-1)
