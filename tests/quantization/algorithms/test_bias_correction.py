"""Bias correction against equation 17 in float64, and its effect where weights are coarse."""

from __future__ import annotations

import torch
from torch import nn

from razordeploy.quantization.algorithms.bias_correction import BiasCorrection, FastBiasCorrection, expected_shift
from razordeploy.quantization.algorithms.layers import layers, weight_points
from razordeploy.quantization.qparams import fake_quantize
from tests.quantization.algorithms.conftest import draft_sqnr, make_draft, outputs


def test_fast_correction_is_the_weight_error_times_the_mean_input():
    model, x = nn.Linear(6, 4), torch.rand(64, 6) + 1
    draft, work = make_draft(model, x, bits=3)
    changed = draft.copied()
    FastBiasCorrection().apply(changed, work)
    layer = next(layers(draft.captured))
    q = draft.params[weight_points(draft.plan)[layer.name].group]
    error = model.weight.double() - fake_quantize(model.weight.detach(), q).double()
    expected = model.bias.double() + error @ x.double().mean(0)
    found = changed.constant(next(layers(changed.captured)).bias)
    assert torch.allclose(found.double(), expected, atol=1e-6)
    assert torch.equal(draft.constant(layer.bias), model.bias)  # the draft that it started from is as it was


def test_shift_of_grouped_and_transposed_layers_is_what_a_constant_input_gives():
    for conv in (nn.Conv2d(4, 6, 1, groups=2), nn.ConvTranspose2d(4, 6, 1, groups=2), nn.Conv2d(4, 4, 1, groups=4)):
        x = torch.rand(4, dtype=torch.float64)
        draft, _ = make_draft(conv, torch.randn(4, 4, 5, 5))
        layer = next(layers(draft.captured))
        other = torch.randn_like(conv.weight).double()
        twin = type(conv)(4, conv.out_channels, 1, groups=conv.groups, bias=False).double()
        twin.weight.data = conv.weight.double() - other
        expected = twin(x.view(1, 4, 1, 1)).flatten()
        assert torch.allclose(expected_shift(layer, conv.weight.double(), other, x), expected)


def test_full_correction_makes_the_means_of_every_layer_equal():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 5))
    x = torch.rand(64, 3, 6, 6)
    draft, work = make_draft(model, x, bits=3)
    changed = draft.copied()
    BiasCorrection().apply(changed, work)
    expected = model(x).double().mean(0)
    plain, corrected = (outputs(d, x).double().mean(0) for d in (draft, changed))
    assert torch.allclose(corrected, expected, atol=1e-5)
    assert not torch.allclose(plain, expected, atol=1e-3)


def test_a_layer_without_a_bias_gets_one_of_its_own():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 3, bias=False))
    x = torch.rand(64, 3, 8, 8)
    draft, work = make_draft(model, x, bits=3)
    before = draft_sqnr(draft, model, x)
    for algorithm in (FastBiasCorrection(), BiasCorrection()):
        changed = draft.copied()
        algorithm.apply(changed, work)
        assert draft_sqnr(changed, model, x) > before + 1
        assert torch.allclose(outputs(changed, x, simulated=False), model(x), atol=1e-5)
