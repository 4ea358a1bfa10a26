"""A layer trained with its batch norm, against the two modules themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.capture.batchnorm import FoldedNorm
from razordeploy.config.scheme import QScheme
from razordeploy.quantization.fake_quants.lsq import LearnableFakeQuantize
from razordeploy.quantization.plan import QParams
from razordeploy.quantization.qat.folded import FoldedLayer
from razordeploy.quantization.qparams import compute_qparams, fake_quantize

_aten = torch.ops.aten


def pair(bias: bool) -> tuple[nn.Conv2d, nn.BatchNorm2d, FoldedLayer]:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(2, 5, 3, stride=2, bias=bias), nn.BatchNorm2d(5, momentum=0.3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    kept = FoldedNorm(
        weight=conv.weight, bias=conv.bias, gamma=norm.weight, beta=norm.bias, mean=norm.running_mean,
        var=norm.running_var, eps=norm.eps, momentum=0.3,
    )  # fmt: skip
    return conv, norm, FoldedLayer(_aten.conv2d.default, ([2, 2],), kept, None)


@pytest.mark.parametrize("bias", [False, True])
def test_live_it_is_the_layer_and_its_norm(bias):
    conv, norm, layer = pair(bias)
    x = torch.randn(8, 2, 9, 9)
    target = torch.randn(8, 5, 4, 4)
    for module in (conv, norm, layer):
        module.train()
    expected, found = norm(conv(x)), layer(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.running_mean, norm.running_mean)
    torch.testing.assert_close(layer.running_var, norm.running_var)
    (expected * target).sum().backward()
    (found * target).sum().backward()
    torch.testing.assert_close(layer.weight.grad, conv.weight.grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(layer.gamma.grad, norm.weight.grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(layer.beta.grad, norm.bias.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("how", ["eval", "frozen"])
def test_frozen_it_is_one_layer_with_running_statistics(bias, how):
    conv, norm, layer = pair(bias)
    conv.eval()
    norm.eval()
    layer.train(how == "frozen")
    layer.frozen = how == "frozen"
    x = torch.randn(8, 2, 9, 9)
    torch.testing.assert_close(layer(x), norm(conv(x)), rtol=1e-4, atol=1e-5)
    weight, shift = layer.exported()
    torch.testing.assert_close(nn.functional.conv2d(x, weight, shift, 2), layer(x))
    assert torch.equal(layer.running_mean, norm.running_mean)


def test_a_channel_of_gamma_zero_stays_finite():
    _, _, layer = pair(bias=False)
    with torch.no_grad():
        layer.gamma[1] = 0.0
    y = layer.train()(torch.randn(8, 2, 9, 9))
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.equal(y[:, 1], layer.beta[1].expand_as(y[:, 1]))
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("signed", [True, False])
def test_the_exported_weight_on_the_exported_grid_is_what_was_trained(per_channel, signed):
    conv, norm, _ = pair(bias=False)
    kept = FoldedNorm(
        weight=conv.weight, bias=None, gamma=norm.weight, beta=norm.bias, mean=norm.running_mean,
        var=norm.running_var, eps=norm.eps, momentum=0.3,
    )  # fmt: skip
    folded = (conv.weight * (norm.weight / (norm.running_var + norm.eps).sqrt()).reshape(-1, 1, 1, 1)).detach()
    # A grid that is not symmetric about zero: the sign of gamma matters.
    scheme = QScheme(bits=3, signed=signed, symmetric=signed, ch_axis=0 if per_channel else None)
    low, high = (folded.amin((1, 2, 3)), folded.amax((1, 2, 3))) if per_channel else (folded.min(), folded.max())
    start = compute_qparams(low, high, scheme)
    quant = LearnableFakeQuantize(scheme=scheme)
    quant.set_qparams(start)
    layer = FoldedLayer(_aten.conv2d.default, ([2, 2],), kept, quant).eval()
    assert layer.relative is per_channel
    torch.testing.assert_close(layer.exported_grid(quant.qparams).scale, start.scale)
    with torch.no_grad():
        layer.weight.add_(torch.randn_like(layer.weight) * 0.05)
        layer.gamma.mul_(1.3)
        quant.scale.mul_(0.9)
    x = torch.randn(4, 2, 9, 9)
    weight, shift = layer.exported()
    rounded = fake_quantize(weight, layer.exported_grid(quant.qparams))
    torch.testing.assert_close(layer(x), nn.functional.conv2d(x, rounded, shift, 2), rtol=1e-4, atol=1e-5)


def test_a_channel_that_is_all_but_off_trains_at_its_own_size():
    _, _, layer = pair(bias=False)
    quant = LearnableFakeQuantize(scheme=QScheme(bits=4, signed=True, symmetric=True, ch_axis=0))
    quant.set_qparams(
        QParams(scale=torch.full((5,), 0.02), zero_point=torch.zeros(5, dtype=torch.int64), scheme=quant.scheme)
    )
    kept = FoldedNorm(
        weight=layer.weight, bias=None, gamma=torch.tensor([1.0, 1e-8, 1.0, -1.0, 1.0]), beta=layer.beta,
        mean=torch.zeros(5), var=torch.ones(5), eps=1e-5, momentum=0.1,
    )  # fmt: skip
    quant.scale.data[1] *= 1e-8
    made = FoldedLayer(_aten.conv2d.default, ([2, 2],), kept, quant)
    torch.testing.assert_close(quant.scale.detach(), torch.full((5,), 0.02), rtol=1e-4, atol=0)
    for frozen in (True, False):
        made.frozen = frozen
        made.zero_grad()
        made.train()(torch.randn(8, 2, 9, 9)).square().sum().backward()
        assert quant.scale.grad[1].abs() <= 1e-3 * quant.scale.grad.abs().max()
        assert made.weight.grad[1].abs().max() <= 1e-3 * made.weight.grad.abs().max()
