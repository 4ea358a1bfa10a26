"""Written-out activation functions become one operator with the same values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from razordeploy.capture.export import capture

_aten = torch.ops.aten
_FORMS = {
    "hardsigmoid clip then divide": (lambda x: (x + 3).clamp(0, 6) / 6, _aten.hardsigmoid.default),
    "hardsigmoid relu6 times": (lambda x: nn.functional.relu6(x + 3) * (1 / 6), _aten.hardsigmoid.default),
    "hardsigmoid divide then clip": (lambda x: ((x + 3.0) / 6.0).clamp_(0, 1), _aten.hardsigmoid.default),
    "hardswish of hardsigmoid": (lambda x: x * nn.functional.hardsigmoid(x), _aten.hardswish.default),
    "hardswish clip": (lambda x: x * (x + 3).clamp(0, 6) / 6, _aten.hardswish.default),
    "hardswish written out": (lambda x: x * nn.functional.relu6(x + 3, inplace=True) / 6, _aten.hardswish.default),
    "silu": (lambda x: x * torch.sigmoid(x), _aten.silu.default),
    "silu gate first": (lambda x: torch.sigmoid(x) * x, _aten.silu.default),
    "gelu": (lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))), _aten.gelu.default),
    "gelu half first": (lambda x: 0.5 * x * (1.0 + torch.erf(x * 0.7071067811865475)), _aten.gelu.default),
    "gelu half last": (lambda x: x * (torch.erf(x / 2**0.5) + 1) / 2, _aten.gelu.default),
}
_OTHERS = {
    "another shift": lambda x: (x + 2).clamp(0, 6) / 6,
    "another bound": lambda x: (x + 3).clamp(0, 5) / 6,
    "another factor": lambda x: (x + 3).clamp(0, 6) / 5,
    "gate of something else": lambda x: x * torch.sigmoid(1.702 * x),
    "gate of a neighbour": lambda x: x * torch.sigmoid(x.roll(1, 1)),
    "no gelu": lambda x: x * (1.0 + torch.erf(x / math.sqrt(2.0))),
    "gelu of another width": lambda x: x * 0.5 * (1.0 + torch.erf(x / 2.0)),
}


class _Net(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x.abs() * x)


def _targets(captured):
    return [n.target for n in captured.graph.nodes if n.op == "call_function"]


@pytest.mark.parametrize("form", _FORMS)
def test_one_operator_with_the_same_values(form):
    function, target = _FORMS[form]
    x = torch.randn(4, 6) * 3
    captured = capture(_Net(function), (x,))
    assert _targets(captured) == [_aten.abs.default, _aten.mul.Tensor, target]
    torch.testing.assert_close(captured.graph_module(x), function(x.abs() * x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", _OTHERS)
def test_what_only_looks_alike_stays(form):
    x = torch.randn(4, 6) * 3
    captured = capture(_Net(_OTHERS[form]), (x,))
    known = {_aten.hardsigmoid.default, _aten.hardswish.default, _aten.silu.default, _aten.gelu.default}
    assert not known & set(_targets(captured))
    torch.testing.assert_close(captured.graph_module(x), _OTHERS[form](x.abs() * x))
