"""Re-estimation on the folded graph against a batch norm that is re-estimated itself, in float64."""

from __future__ import annotations

import torch
from torch import nn

from razordeploy.quantization.algorithms.batchnorm import BatchNormReestimation
from razordeploy.quantization.algorithms.layers import layers, weight_points
from razordeploy.quantization.qparams import fake_quantize, quantize
from tests.quantization.algorithms.conftest import draft_sqnr, images, make_draft, outputs


def fitted(x):
    """A network whose batch norms have the statistics of ``x`` itself."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, eps=0.0), nn.ReLU(), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        model[1].weight.uniform_(-1.5, 1.5)
        model[1].bias.normal_()
        y = model[0](x)
        model[1].running_mean.copy_(y.mean((0, 2, 3)))
        model[1].running_var.copy_(y.var((0, 2, 3), correction=0))
    return model.eval()


def test_it_is_what_the_batch_norm_itself_would_give():
    x = images(64)
    model = fitted(x)
    draft, work = make_draft(model, x, bits=3, a_bits=16)
    changed = draft.copied()
    BatchNormReestimation(samples=64).apply(changed, work)
    layer = next(layers(draft.captured))
    q = draft.params[weight_points(draft.plan)[layer.name].group]
    rounded = fake_quantize(draft.constant(layer.weight), q).double()
    y = nn.functional.conv2d(x.double(), rounded)
    gamma, beta = (p.detach().double() for p in (model[1].weight, model[1].bias))
    mean, spread = y.mean((0, 2, 3)), y.var((0, 2, 3), correction=0).sqrt()
    shape = (1, -1, 1, 1)
    expected = (y - mean.view(shape)) / spread.view(shape) * gamma.abs().view(shape) + beta.view(shape)
    layer = next(layers(changed.captured))
    q = changed.params[weight_points(changed.plan)[layer.name].group]
    weight, bias = changed.constant(layer.weight), changed.constant(layer.bias)
    found = nn.functional.conv2d(x.double(), fake_quantize(weight, q).double(), bias.double())
    assert torch.allclose(found, expected, atol=2e-4)
    original = next(layers(draft.captured))
    before = quantize(draft.constant(original.weight), draft.params[weight_points(draft.plan)[original.name].group])
    assert torch.equal(quantize(weight, q), before), "integers stay as they were"


def test_coarse_weights_lose_less():
    x = images(96)
    model = fitted(x)
    draft, work = make_draft(model, x, bits=2)
    changed = draft.copied()
    BatchNormReestimation().apply(changed, work)
    assert draft_sqnr(changed, model, x) > draft_sqnr(draft, model, x) + 1
    assert torch.allclose(outputs(changed, x, simulated=False), model(x), atol=1e-4)
    assert "1 batch norms" in work.notes[-1]
