"""Constant factors and offsets per channel are folded into the layer before them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from razordeploy.capture.export import capture


class _Scaled(nn.Module):
    def __init__(self, layer, after, size=4):
        super().__init__()
        self.layer, self.after = layer, after
        self.gamma = nn.Parameter(torch.rand(size) + 0.5)
        self.beta = nn.Parameter(torch.randn(size))

    def forward(self, x):
        return self.after(self, self.layer(x))


def _flat_norm(m, y):
    return m.norm(y.flatten(0, 1)).reshape_as(y)


_FOLDED = {
    "linear layer scale": (nn.Linear(6, 4), lambda m, y: y * m.gamma, (2, 5, 6)),
    "linear scalar and offset": (nn.Linear(6, 4, bias=False), lambda m, y: y / 3 + m.beta - 1, (2, 5, 6)),
    "conv layer scale": (nn.Conv2d(6, 4, 1), lambda m, y: m.gamma.view(1, -1, 1, 1) * y, (2, 6, 3, 3)),
    "conv offset without batch axis": (
        nn.Conv2d(6, 4, 3, bias=False),
        lambda m, y: y + m.beta[:, None, None],
        (2, 6, 5, 5),
    ),
    "grouped transposed conv": (
        nn.ConvTranspose2d(6, 4, 2, 2, groups=2),
        lambda m, y: y * m.gamma[:, None, None],
        (2, 6, 3, 3),
    ),
    "behind a permutation": (
        nn.Linear(6, 4),
        lambda m, y: y.permute(0, 3, 1, 2) * m.gamma.view(1, -1, 1, 1),
        (2, 3, 3, 6),
    ),
    "behind a flattening": (nn.Linear(6, 4), lambda m, y: y.flatten(0, 1) * m.gamma, (2, 5, 6)),
    "image to tokens": (nn.Conv2d(6, 4, 1), lambda m, y: y.flatten(2).transpose(1, 2) * m.gamma, (2, 6, 3, 3)),
}
_KEPT = {
    "along another axis": (nn.Linear(6, 4), lambda m, y: y * m.gamma[:, None], (2, 4, 6)),
    "read twice": (nn.Linear(6, 4), lambda m, y: y * m.gamma + y, (2, 5, 6)),
    "channels torn apart": (nn.Linear(6, 4), lambda m, y: y.reshape(2, 5, 2, 2) * m.gamma[:2], (2, 5, 6)),
    "no constant": (nn.Linear(6, 4), lambda m, y: y * y.mean(1, keepdim=True), (2, 5, 6)),
    "a number divided by it": (nn.Linear(6, 4), lambda m, y: 2 / y, (2, 5, 6)),
}


def _count(captured):
    return len(
        [n for n in captured.graph.nodes if n.op == "call_function" and len(n.args) > 1 and "view" not in n.name]
    )


@pytest.mark.parametrize("case", _FOLDED)
def test_is_folded(case):
    layer, after, shape = _FOLDED[case]
    torch.manual_seed(0)
    net = _Scaled(layer, after).eval()
    x = torch.randn(shape)
    captured = capture(net, (x,))
    names = {str(n.target) for n in captured.graph.nodes if n.op == "call_function"}
    assert not any(op in name for name in names for op in ("mul", "add", "sub", "div")), names
    exact = copy.deepcopy(net).double()(x.double()).detach()
    torch.testing.assert_close(captured.graph_module(x).detach().double(), exact, rtol=1e-5, atol=1e-5)


def test_batch_norm_behind_a_flattening():
    """LeViT's linear layers: tokens are flattened into the batch, normalised, and put back."""
    torch.manual_seed(0)
    net = _Scaled(nn.Linear(6, 4, bias=False), _flat_norm)
    net.norm = nn.BatchNorm1d(4)
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.1, 2)
    net.eval()
    x = torch.randn(2, 5, 6)
    captured = capture(net, (x,))
    names = {str(n.target) for n in captured.graph.nodes if n.op == "call_function"}
    assert not any(op in name for name in names for op in ("mul", "add", "batch_norm")), names
    torch.testing.assert_close(captured.graph_module(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", _KEPT)
def test_is_kept(case):
    layer, after, shape = _KEPT[case]
    torch.manual_seed(0)
    net = _Scaled(layer, after).eval()
    x = torch.randn(shape)
    captured = capture(net, (x,))
    assert any(op in str(n.target) for n in captured.graph.nodes for op in ("mul", "div", "reciprocal"))
    torch.testing.assert_close(captured.graph_module(x), net(x), rtol=1e-5, atol=1e-5)
