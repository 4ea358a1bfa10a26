"""Layers in oneDNN's kernels compute what the plain graph does; what is watched stays a value of its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.capture import fused
from razordeploy.capture.export import capture
from razordeploy.capture.fast import fast_input

ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU6(),
    nn.Hardtanh(-0.5, 0.25),
    nn.Hardswish(),
    nn.SiLU(),
    nn.GELU(),
    nn.GELU(approximate="tanh"),
    nn.Sigmoid(),
    nn.Tanh(),
]


def _layers(module):
    names = {fused.fused_convolution, fused.fused_linear}
    return [n for n in module.graph.nodes if n.op == "call_function" and n.target in names]


@pytest.mark.parametrize("activation", [*ACTIVATIONS, nn.LeakyReLU(0.1), nn.Identity()], ids=lambda a: str(a))
@pytest.mark.parametrize("layer", ["convolution", "linear"])
def test_an_activation_runs_inside_its_layer(layer, activation):
    torch.manual_seed(0)
    net, x = {
        "convolution": (nn.Sequential(nn.Conv2d(6, 9, 3, stride=2, padding=1), activation), torch.randn(2, 6, 9, 9)),
        "linear": (nn.Sequential(nn.Linear(9, 5, bias=False), activation), torch.randn(2, 4, 9)),
    }[layer]
    module = capture(net.eval(), (x,)).graph_module
    fused.fuse_layers(module)
    taken = any(activation is a for a in ACTIVATIONS)
    left = [n for n in module.graph.nodes if n.op == "call_function"]
    assert len(left) == (1 if taken or isinstance(activation, nn.Identity) else 2)
    assert len(_layers(module)) == int(taken or layer == "convolution")
    module.recompile()
    with torch.inference_mode():
        for batch in (x, x[:1]):
            torch.testing.assert_close(module(fast_input(batch)), net(batch), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 8, 1, bias=False),
        nn.Conv2d(6, 12, 3, padding=2, dilation=2, groups=6),
        nn.Conv2d(6, 4, (3, 1), stride=(1, 2), groups=2),
        nn.Conv2d(6, 4, 3, padding="same"),
    ],
    ids=str,
)
def test_convolutions_of_any_kind_compute_the_same(conv):
    torch.manual_seed(0)
    x = torch.randn(3, 6, 11, 10)
    module = capture(conv, (x,)).graph_module
    fused.fuse_layers(module)
    module.recompile()
    with torch.inference_mode():
        for given in (x, fast_input(x), x.transpose(2, 3).contiguous().transpose(2, 3)):
            torch.testing.assert_close(module(given), conv(x), rtol=1e-5, atol=1e-5)


class _ReadTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        y = self.conv(x)
        return y.relu() + y


def test_a_layer_that_others_read_keeps_its_value_and_its_weights_are_not_kept_twice():
    module = capture(_ReadTwice(), (torch.randn(2, 3, 4, 4),)).graph_module
    fused.fuse_layers(module)
    (layer,) = _layers(module)
    assert layer.args[-3] == "none"
    assert [n.target for n in module.graph.nodes].count(torch.ops.aten.relu.default) == 1
    assert [name for name, value in module.named_parameters() if value.dim() == 4] == []


class _Computed(nn.Module):
    def forward(self, x, weight):
        return nn.functional.conv2d(x, weight)


def test_a_computed_weight_stays_with_torch():
    module = capture(_Computed(), (torch.randn(2, 3, 4, 4), torch.randn(5, 3, 1, 1))).graph_module
    fused.fuse_layers(module)
    assert not _layers(module)
