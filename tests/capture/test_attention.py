"""Attention written out computes what the fused operator does."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razordeploy.capture.export import capture

_SDPA = torch.ops.aten.scaled_dot_product_attention.default


class _Attention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, q, k, v, *mask):
        return F.scaled_dot_product_attention(q, k, v, *mask, **self.options)


def _inputs(*mask):
    torch.manual_seed(0)
    return (*(torch.randn(2, 3, t, 8) for t in (5, 7, 7)), *mask)


def _captured(inputs, **options):
    return capture(_Attention(**options).eval(), inputs)


@pytest.mark.parametrize("options", [{}, {"scale": 0.3}], ids=str)
def test_without_a_mask(options):
    inputs = _inputs()
    captured = _captured(inputs, **options)
    assert _SDPA not in {n.target for n in captured.graph.nodes}
    torch.testing.assert_close(captured.graph_module(*inputs), _Attention(**options)(*inputs))


def test_against_the_definition_in_float64():
    q, k, v = inputs = _inputs()
    captured = _captured(inputs)
    scores = q.double() @ k.double().transpose(-1, -2) / math.sqrt(8)
    torch.testing.assert_close(
        captured.graph_module(*inputs).double(), scores.softmax(-1) @ v.double(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("shape", [(5, 7), (2, 1, 5, 7)], ids=str)
@pytest.mark.parametrize("kind", ["float", "bool"])
def test_masks(shape, kind):
    mask = torch.randn(shape) if kind == "float" else torch.rand(shape) > 0.4
    if kind == "bool":
        mask[..., 0] = True  # a row that may look at nothing is NaN by definition
    inputs = _inputs(mask)
    captured = _captured(inputs)
    assert _SDPA not in {n.target for n in captured.graph.nodes}
    torch.testing.assert_close(captured.graph_module(*inputs), _Attention()(*inputs))


def test_causal():
    inputs = _inputs()
    torch.testing.assert_close(
        _captured(inputs, is_causal=True).graph_module(*inputs), _Attention(is_causal=True)(*inputs)
    )


def test_values_keep_their_shapes():
    captured = _captured(_inputs())
    batch = captured.placeholders()[0].meta["val"].shape[0]
    for node in captured.graph.nodes:
        if node.op == "call_function":
            assert node.meta["val"].shape[0] == batch, f"{node} lost its dynamic batch"
