"""A layer trained with its batch norm, against the two modules themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.capture.batchnorm import FoldedNorm
from razordeploy.quantization.qat.folded import FoldedLayer

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
    weight, shift = layer.folded()
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
