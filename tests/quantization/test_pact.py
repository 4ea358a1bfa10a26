"""PACT against equations 2 and 3 of the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.fake_quants.pact import PACTFakeQuantize
from razordeploy.quantization.plan import QParams
from razordeploy.quantization.qparams import fake_quantize


def pact(scheme: QScheme, scale: float, zero_point: int = 0, **keywords: float) -> PACTFakeQuantize:
    module = PACTFakeQuantize(scheme=scheme, **keywords)
    module.set_qparams(QParams(scale=torch.tensor(scale), zero_point=torch.tensor(zero_point), scheme=scheme))
    return module


@pytest.mark.parametrize("regularization", [0.0, 0.01])
def test_gradients_are_those_of_the_paper(regularization):
    torch.manual_seed(0)
    scheme = QScheme(bits=4, symmetric=True)
    module = pact(scheme, 0.1, regularization=regularization)
    alpha = 1.5
    assert module.alpha.item() == pytest.approx(alpha)
    x = torch.randn(40, 3).mul(2).requires_grad_()
    weight = torch.randn(40, 3)
    y = module(x)
    (y * weight).sum().backward()
    v, g = x.detach().double().numpy(), weight.double().numpy()
    clipped = 0.5 * (np.abs(v) - np.abs(v - alpha) + alpha)  # equation 1
    np.testing.assert_allclose(y.detach(), np.rint(clipped * 15 / alpha) * alpha / 15, atol=1e-6)
    by_alpha = (g * (v >= alpha)).sum() + regularization * alpha
    # A step of lr along alpha = 15 s moves s by lr / 15 of alpha's gradient.
    assert module.scale.grad.item() == pytest.approx(by_alpha / 15, rel=1e-4)
    np.testing.assert_allclose(x.grad, g * ((v > 0) & (v < alpha)), atol=1e-6)


def test_a_lower_end_moves_with_alpha():
    scheme = QScheme(bits=4)
    module = pact(scheme, 0.1, 5)
    x = torch.tensor([-3.0, -0.2, 0.3, 4.0])
    module(x).sum().backward()
    # alpha = 10 s, and the lower end is -alpha / 2.
    assert module.scale.grad.item() == pytest.approx((1.0 - 0.5) / 10)


def test_it_rounds_as_every_fake_quant_does_and_keeps_its_zero_point():
    scheme = QScheme(bits=5)
    module = pact(scheme, 0.07, 9)
    x = torch.randn(100)
    assert torch.equal(module(x), fake_quantize(x, module.qparams))
    assert not module.zero_point.requires_grad


def test_a_negative_regularization_is_refused():
    with pytest.raises(RecipeError, match="regularization of at least 0"):
        PACTFakeQuantize(scheme=QScheme(), regularization=-1.0)
