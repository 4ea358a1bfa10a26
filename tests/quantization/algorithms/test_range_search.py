"""Ranges chosen by output error: never worse than what was there, and much better where single values are far off."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.errors import RecipeError
from razordeploy.quantization.algorithms.range_search import RangeSearch
from razordeploy.quantization.algorithms.table import build_algorithm
from tests.quantization.algorithms.conftest import draft_sqnr, make_draft


def test_an_outlier_that_no_weight_reads_costs_nothing():
    model = nn.Linear(16, 8)
    with torch.no_grad():
        model.weight[:, 0] = 0
    x = torch.randn(256, 16)
    x[:, 0] *= 200
    draft, work = make_draft(model, x)
    changed = draft.copied()
    RangeSearch().apply(changed, work)
    assert draft_sqnr(changed, model, x) >= draft_sqnr(draft, model, x) + 6


def test_weights_of_few_bits_are_clipped_channel_by_channel():
    model = nn.Conv2d(4, 8, 3)
    with torch.no_grad():
        model.weight[2:, 0, 0, 0] = 1.5
    x = torch.randn(128, 4, 8, 8) * torch.tensor([0.1, 1, 1, 1]).view(1, 4, 1, 1)
    draft, work = make_draft(model, x, bits=4)
    changed = draft.copied()
    RangeSearch(activations=False).apply(changed, work)
    assert draft_sqnr(changed, model, x) >= draft_sqnr(draft, model, x) + 3
    group = next(p.group for p in draft.plan.points if p.kind == "weight")
    ratios = changed.params[group].scale / draft.params[group].scale
    assert ratios.min() < 0.7 and ratios.unique().numel() > 1


@pytest.mark.parametrize("layer", (nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Conv2d(4, 4, 3, groups=4)))
def test_grouped_layers(layer):
    x = torch.randn(64, 4, 6, 6)
    draft, work = make_draft(layer, x, bits=3)
    changed = draft.copied()
    RangeSearch().apply(changed, work)
    assert draft_sqnr(changed, layer, x) >= draft_sqnr(draft, layer, x)


def test_bad_options_are_refused():
    with pytest.raises(RecipeError, match="samples of 1 or more"):
        build_algorithm({"type": "RangeSearch", "samples": 0})
    with pytest.raises(RecipeError, match="did you mean 'samples'"):
        build_algorithm({"type": "RangeSearch", "sampels": 4})
    with pytest.raises(RecipeError, match="expected bool"):
        build_algorithm({"type": "RangeSearch", "weights": 3})
    with pytest.raises(RecipeError, match="did you mean 'RangeSearch'"):
        build_algorithm({"type": "RangSearch"})
