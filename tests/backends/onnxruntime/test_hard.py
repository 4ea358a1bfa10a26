"""Hard-sigmoid and hard-swish in integer kernels: the engine computes what the simulation does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from razordeploy.quantization.plan import QParams
from razordeploy.quantization.qparams import with_floor

pytest.importorskip("onnxruntime", reason="needs onnxruntime")


class _Net(nn.Module):
    """A layer, the activation and a layer; ``twice``: something else reads what the activation reads."""

    def __init__(self, act, first, second, twice=False):
        super().__init__()
        first.weight.data.mul_(4.0)
        self.first, self.act, self.second, self.twice = first, act, second, twice

    def forward(self, x):
        y = self.first(x)
        z = self.act(y)
        return self.second(z + y if self.twice else z)


def _conv(act, bias=True, **options):
    return _Net(act, nn.Conv2d(3, 8, 3, bias=bias), nn.Conv2d(8, 4, 1), **options)


def _linear(act):
    return _Net(act, nn.Linear(12, 8), nn.Linear(8, 4))


_IMAGE, _ROWS, _TOKENS = (2, 3, 10, 10), (6, 12), (2, 5, 12)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (lambda: _conv(nn.Hardswish()), _IMAGE),
        (lambda: _conv(nn.Hardswish(), bias=False), _IMAGE),
        (lambda: _linear(nn.Hardswish()), _ROWS),
        (lambda: _linear(nn.Hardswish()), _TOKENS),
        (lambda: _conv(nn.Hardsigmoid()), _IMAGE),
        (lambda: _conv(nn.Hardsigmoid(), bias=False), _IMAGE),
        (lambda: _linear(nn.Hardsigmoid()), _ROWS),
    ],
    ids=["conv swish", "conv swish, no bias", "rows swish", "tokens swish", "conv", "conv, no bias", "rows"],
)
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_all_in_integers(net, shape, scale, build):
    torch.manual_seed(0)
    built = build(net(), torch.randn(shape) * scale)
    assert all(op.int8 for op in built.plan.ops)
    assert not built.floats, built.kernels
    assert built.steps < 1.01


@pytest.mark.parametrize("factor", [0.7, 1.6])
def test_a_grid_that_training_moved(factor, build):
    """Of a hard-sigmoid it may reach beyond 1, and is clipped there; of a hard-swish's input it begins at -3 again."""
    torch.manual_seed(0)

    def scaled(group, q):
        return with_floor(replace(q, scale=q.scale * factor)) if "hard" in group or "conv" in group else q

    for act in (nn.Hardsigmoid(), nn.Hardswish()):
        built = build(_conv(act), torch.randn(_IMAGE) * 3, scaled)
        assert not built.floats, built.kernels
        assert built.steps < 1.01


def test_a_step_that_does_not_divide_three(build):
    """The function then runs in float between the pairs, and computes the same as the simulation."""
    torch.manual_seed(0)

    def off(group, q):
        return QParams(scale=q.scale * 1.01, zero_point=q.zero_point, scheme=q.scheme) if q.scheme.floor else q

    built = build(_conv(nn.Hardswish()), torch.randn(_IMAGE), off)
    assert built.floats
    assert built.steps < 1.01


def test_float_where_something_else_reads_the_input(build):
    torch.manual_seed(0)
    built = build(_conv(nn.Hardswish(), twice=True), torch.randn(_IMAGE))
    (swish,) = (op for op in built.plan.ops if op.kind == "hardswish")
    assert not swish.int8 and "cannot begin at -3" in swish.reason
    assert built.steps < 1.01
