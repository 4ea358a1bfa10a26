"""AdaRound's functions against equations 21 to 24, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from razordeploy.config.scheme import QScheme
from razordeploy.quantization.algorithms.rounding import (
    SoftRounding,
    beta_at,
    inverse_rectified_sigmoid,
    rectified_sigmoid,
    rounding_regularizer,
)
from razordeploy.quantization.plan import QParams
from razordeploy.quantization.qparams import fake_quantize, quantize


@pytest.mark.parametrize("v", (-9.0, -1.3, 0.0, 0.4, 2.0, 9.0))
def test_rectified_sigmoid_is_equation_23(v):
    expected = min(1.0, max(0.0, 1.2 / (1 + math.exp(-v)) - 0.1))
    assert float(rectified_sigmoid(torch.tensor(v, dtype=torch.float64))) == pytest.approx(expected, abs=1e-12)


def test_the_inverse_gives_back_the_fraction():
    h = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    assert torch.allclose(rectified_sigmoid(inverse_rectified_sigmoid(h)), h, atol=1e-12)


@pytest.mark.parametrize("beta", (20.0, 2.0))
def test_regularizer_is_equation_24(beta):
    v = torch.tensor([-3.0, -0.5, 0.0, 0.7, 4.0], dtype=torch.float64)
    h = [min(1.0, max(0.0, 1.2 / (1 + math.exp(-x)) - 0.1)) for x in v.tolist()]
    expected = sum(1 - abs(2 * x - 1) ** beta for x in h)
    assert float(rounding_regularizer(v, beta)) == pytest.approx(expected, abs=1e-12)


def test_beta_waits_and_then_falls_from_20_to_2():
    found = [beta_at(step, 100) for step in range(100)]
    assert found[:20] == [None] * 20
    assert found[20] == pytest.approx(20) and found[99] == pytest.approx(2, abs=0.1)
    assert all(a >= b for a, b in zip(found[20:], found[21:], strict=False))


@pytest.mark.parametrize("symmetric", (True, False))
def test_soft_weight_starts_as_the_weight_and_ends_on_the_grid(symmetric):
    weight = torch.randn(4, 6)
    scheme = QScheme(bits=4, signed=symmetric, symmetric=symmetric, ch_axis=0)
    zero = torch.zeros(4) if symmetric else torch.tensor([7, 8, 6, 9])
    q = QParams(scale=torch.full((4,), 0.5), zero_point=zero.long(), scheme=scheme)
    soft = SoftRounding(weight, q)
    assert torch.allclose(soft(), weight, atol=1e-5)
    with torch.no_grad():
        soft.v.copy_(torch.randn(4, 6) * 5)
    rounded = soft.rounded()
    assert torch.equal(fake_quantize(rounded, q), rounded)
    up = rectified_sigmoid(soft.v) >= 0.5
    expected = ((weight / 0.5).floor() + up + q.zero_point[:, None]).clamp(scheme.qmin, scheme.qmax)
    assert torch.equal(quantize(rounded, q).float(), expected)


def test_integers_survive_division_by_any_scale():
    """An exporter divides the stored weight by its scale: that has to give the learned integer for every scale."""
    scheme = QScheme(bits=8, signed=True, symmetric=True, ch_axis=0)
    scale = torch.rand(4096) * 10 ** torch.empty(4096).uniform_(-6, 3)
    integers = torch.arange(-127, 128).float().expand(4096, -1)
    q = QParams(scale=scale, zero_point=torch.zeros(4096, dtype=torch.int64), scheme=scheme)
    assert torch.equal(quantize(integers * scale[:, None], q).float(), integers)
