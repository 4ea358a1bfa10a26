"""SmoothQuant against equation 4, and its effect on a transformer block with planted outlier channels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.errors import RecipeError
from razordeploy.quantization.algorithms.range_search import RangeSearch
from razordeploy.quantization.algorithms.smooth_quant import SmoothQuant, smoothing_factors
from tests.quantization.algorithms.conftest import draft_sqnr, make_draft, outputs


class Block(nn.Module):
    """Pre-norm attention and MLP; three channels of the norms are 60 times the others."""

    def __init__(self, width=32, outliers=60.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        with torch.no_grad():
            for norm, reader in ((self.norm1, self.qkv), (self.norm2, self.fc1)):
                norm.weight[3:6] = outliers
                reader.weight[:, 3:6] /= outliers

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        a = (q @ k.transpose(-2, -1) / (c // 2) ** 0.5).softmax(-1) @ v
        x = x + self.proj(a.transpose(1, 2).reshape(n, t, c))
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


def tokens(count=64):
    return torch.randn(count, 9, 32, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("alpha", (0.0, 0.5, 0.8))
def test_factors_are_equation_4(alpha):
    x, w = torch.rand(7, dtype=torch.float64) + 0.1, torch.rand(7, dtype=torch.float64) + 0.1
    expected = [a**alpha / b ** (1 - alpha) for a, b in zip(x.tolist(), w.tolist(), strict=True)]
    assert smoothing_factors(x, w, alpha).tolist() == pytest.approx(expected)
    assert smoothing_factors(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0]), alpha).tolist() == [1, 1]


@pytest.mark.parametrize("backend", ("academic", "openvino"))
def test_planted_outliers_cost_6_db_less(backend):
    model, x = Block(), tokens()
    options = {"skip_ops": ["attention_scores", "attention_values", "matmul"]}
    draft, work = make_draft(model, x, backend=backend, **options)
    changed = draft.copied()
    SmoothQuant(alpha=0.5).apply(changed, work)
    assert torch.allclose(outputs(changed, x, simulated=False), model(x), atol=1e-4)
    assert draft_sqnr(changed, model, x) >= draft_sqnr(draft, model, x) + 6
    assert "2 activations" in work.notes[-1]  # behind the norms; the others come from a softmax or a GELU


def test_what_cannot_be_folded_is_multiplied_where_asked():
    model, x = Block(outliers=1.0), tokens()
    with torch.no_grad():
        model.fc1.bias[5] = 60
        model.fc2.weight[:, 5] /= 60
    draft, work = make_draft(model, x, skip_ops=["attention_scores", "attention_values", "matmul"])
    changed = draft.copied()
    SmoothQuant(insert=True).apply(changed, work)
    assert sum("smoothed" in n.name for n in changed.captured.graph.nodes) == 2
    assert torch.allclose(outputs(changed, x, simulated=False), model(x), atol=1e-4)
    assert draft_sqnr(changed, model, x) >= draft_sqnr(draft, model, x) + 6
    RangeSearch().apply(changed, work)  # the multiplications are part of the graph for all that follows


def test_convolutions_share_through_a_relu():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    with torch.no_grad():
        model[0].weight[2] *= 50
        model[0].bias[2] *= 50
        model[2].weight[:, 2] /= 50
    x = torch.randn(64, 3, 8, 8)
    draft, work = make_draft(model, x)
    changed = draft.copied()
    SmoothQuant().apply(changed, work)
    assert torch.allclose(outputs(changed, x, simulated=False), model(x), atol=1e-4)
    assert draft_sqnr(changed, model, x) >= draft_sqnr(draft, model, x) + 6


def test_alpha_is_a_share():
    with pytest.raises(RecipeError, match="alpha from 0 to 1, got 1.5"):
        SmoothQuant(alpha=1.5)
