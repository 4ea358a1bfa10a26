"""What depends on parameters alone is computed once, at capture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from razordeploy.capture.export import capture

_aten = torch.ops.aten


def _targets(captured):
    return [n.target for n in captured.graph.nodes if n.op == "call_function"]


class _StandardisedConv(nn.Conv2d):
    def forward(self, x):
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / std, self.bias)


class _BiasTable(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, 2))
        self.register_buffer("index", torch.arange(9).reshape(3, 3))

    def forward(self, x):
        return x + self.table[self.index.view(-1)].view(3, 3, 2).permute(2, 0, 1).unsqueeze(0)


class _Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))

    def forward(self, x):
        scale = self.a * self.b
        return x * scale + scale, scale * 2


class _BatchZeros(nn.Module):
    def forward(self, x):
        return x + torch.zeros(x.shape[0], 1), x * torch.arange(4)


def test_weight_standardisation():
    net, x = _StandardisedConv(4, 3, 3).eval(), torch.randn(2, 4, 6, 6)
    captured = capture(net, (x,))
    assert _targets(captured) == [_aten.conv2d.default]
    conv = next(n for n in captured.graph.nodes if n.op == "call_function")
    assert conv.args[1].op == "get_attr", "the weight is a constant now: it can be quantized"
    with torch.no_grad():
        torch.testing.assert_close(captured.graph_module(x), net(x))


def test_position_bias_table():
    net, x = _BiasTable(), torch.randn(2, 2, 3, 3)
    captured = capture(net, (x,))
    assert _targets(captured) == [_aten.add.Tensor]
    with torch.no_grad():
        torch.testing.assert_close(captured.graph_module(x), net(x))


def test_a_constant_with_several_readers_and_as_an_output():
    net, x = _Mixed(), torch.randn(2, 4)
    captured = capture(net, (x,))
    assert _targets(captured) == [_aten.mul.Tensor, _aten.add.Tensor]
    with torch.no_grad():
        for got, want in zip(captured.graph_module(x), net(x), strict=True):
            torch.testing.assert_close(got, want)


def test_what_depends_on_the_batch_size_is_not_folded():
    captured = capture(_BatchZeros(), (torch.randn(2, 4),))
    assert captured.dynamic_batch
    for batch in (1, 5):
        x = torch.randn(batch, 4)
        for got, want in zip(captured.graph_module(x), (x, x * torch.arange(4)), strict=True):
            torch.testing.assert_close(got, want)


def test_the_folded_buffers_replace_the_parameters():
    captured = capture(_Mixed(), (torch.randn(2, 4),))
    assert not list(captured.graph_module.named_parameters())
    assert len(list(captured.graph_module.named_buffers())) == 2
