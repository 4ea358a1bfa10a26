"""Products of two tensors that kernels have just written, as gates and high-order convolutions have them."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import nn

from tests.conformance.blocks import IMAGE


def _same(x):
    return x


class _Product(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.order = order
        self.both, self.deep = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        a, b = self.both(x).chunk(2, 1)
        a = self.deep(a)
        return self.head(a * b if self.order == "kernel first" else b * a)


class _Kernels(nn.Module):
    def __init__(self, make, before=_same, after=_same):
        super().__init__()
        self.a, self.b, self.head = make(8, 8), make(8, 8), make(8, 4)
        self.before, self.after = before, after

    def forward(self, x):
        return self.head(self.before(self.a(x)) * self.after(self.b(x)))


@pytest.mark.parametrize("order", ["kernel first", "kernel second"])
def test_with_a_part_of_another(tester, order):
    tester(lambda: _Product(order), IMAGE).check_int8({"conv2d": 3, "mul": 1}).run_and_compare()


def test_of_two_convolutions(tester):
    tester(lambda: _Kernels(lambda i, o: nn.Conv2d(i, o, 1)), IMAGE).check_int8(
        {"conv2d": 3, "mul": 1}
    ).run_and_compare()


def test_of_two_linear_layers(tester):
    tester(lambda: _Kernels(nn.Linear), (2, 6, 8)).check_int8({"linear": 3, "mul": 1}).run_and_compare()


@pytest.mark.parametrize("names", ["silu same", "relu same", "sigmoid silu", "tanh hardswish"])
def test_behind_activations(tester, names):
    """The first is SwiGLU, the gate of language models and of newer image models."""
    activations = [getattr(F, name, _same) for name in names.split()]
    tested = tester(lambda: _Kernels(nn.Linear, *activations), (4, 32, 8)).run_and_compare()
    int8 = {"linear": 3, "mul": 1}
    tested.check_int8(int8, onnxruntime=int8 if names == "relu same" else {"linear": 3})


class _Gate(nn.Module):
    """Squeeze and excitation right after a convolution without an activation."""

    def __init__(self, order):
        super().__init__()
        self.order = order
        self.x, self.gate, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.x(x)
        gate = self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        return self.head(x * gate if self.order == "gate second" else gate * x)


@pytest.mark.parametrize("order", ["gate first", "gate second"])
def test_with_its_own_gate(tester, order):
    kinds = {"conv2d": 3, "mul": 1, "global_avg_pool": 1}
    tested = tester(lambda: _Gate(order), IMAGE).check_int8(kinds, onnxruntime={**kinds, "sigmoid": 1})
    tested.run_and_compare()
