"""Cross-layer equalization against equation 11, and its effect on a depthwise network with planted channel ranges."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.errors import RecipeError
from razordeploy.quantization.algorithms.equalization import CrossLayerEqualization, equalizing_factors
from razordeploy.quantization.algorithms.layers import layers
from razordeploy.quantization.algorithms.table import build_algorithms
from tests.quantization.algorithms.conftest import draft_sqnr, images, make_draft, outputs


def depthwise(relu=nn.ReLU):
    """A MobileNet-like block whose channels differ in range by up to 300, as trained ones do after folding."""
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        relu(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        relu(),
        nn.Conv2d(16, 8, 1),
        relu(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    factors = torch.logspace(-1.2, 1.2, 16)[torch.randperm(16)].view(-1, 1, 1, 1)
    with torch.no_grad():
        net[0].weight *= factors
        net[0].bias *= factors.flatten()
        net[2].weight /= factors
        more = factors.flip(0)
        net[2].weight *= more
        net[2].bias *= more.flatten()
        net[4].weight /= more.view(1, -1, 1, 1)
    return net


def test_factors_are_equation_11():
    r1, r2 = torch.rand(9, dtype=torch.float64) + 0.1, torch.rand(9, dtype=torch.float64) + 0.1
    s = equalizing_factors(r1, r2)
    assert torch.allclose(s, (1 / r2) * (r1 * r2).sqrt())
    assert torch.allclose(r1 / s, r2 * s)  # equation 9: both layers have the same range


def test_channels_without_a_range_stay_as_they_are():
    found = equalizing_factors(torch.tensor([0.0, 1.0, 4.0]), torch.tensor([1.0, 0.0, 1.0]))
    assert found.tolist() == [1.0, 1.0, 2.0]


@pytest.mark.parametrize("per_channel", (False, True))
def test_planted_ranges_are_equalized(per_channel):
    model, x = depthwise(), images(96)
    draft, work = make_draft(model, x, per_channel=per_channel)
    changed = draft.copied()
    CrossLayerEqualization().apply(changed, work)
    assert torch.allclose(outputs(changed, x, simulated=False), model(x), rtol=1e-3, atol=1e-5)
    gain = draft_sqnr(changed, model, x) - draft_sqnr(draft, model, x)
    assert gain > (12 if not per_channel else 3)
    found = list(layers(changed.captured))
    first, second = (draft_layer.weight for draft_layer in found[:2])
    r1, r2 = found[0].output_extent(changed.constant(first)), found[1].input_extent(changed.constant(second))
    assert torch.allclose(r1, r2, rtol=0.01)


def test_a_bound_is_in_the_way_unless_it_is_given_up():
    model, x = depthwise(nn.ReLU6), images(32)
    draft, work = make_draft(model, x, per_channel=False)
    kept = draft.copied()
    CrossLayerEqualization().apply(kept, work)
    assert "no two layers" in work.notes[-1]
    given_up = draft.copied()
    CrossLayerEqualization(replace_relu6=True).apply(given_up, work)
    assert "4 pairs" not in work.notes[-1] and "3 pairs" in work.notes[-1]


def test_what_two_layers_read_is_left_alone():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x):
            y = torch.relu(self.a(x))
            return self.b(y), self.c(y)

    draft, work = make_draft(Branch(), images(32))
    changed = draft.copied()
    CrossLayerEqualization().apply(changed, work)
    assert "no two layers" in work.notes[-1]


def test_it_comes_before_what_it_would_undo():
    with pytest.raises(RecipeError, match="put CrossLayerEqualization before AdaRound"):
        build_algorithms([{"type": "AdaRound"}, {"type": "CrossLayerEqualization"}])
