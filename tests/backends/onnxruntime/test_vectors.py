"""Channels that fill no whole vector: more of them in the file, the same result to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razordeploy.backends.onnxruntime import rewrite

onnx = pytest.importorskip("onnx", reason="needs onnx")


class _Block(nn.Module):
    """An inverted residual of 18 inner channels with squeeze and excitation, behind a first layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.up = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 18, 1)
        self.deep, self.down = nn.Conv2d(18, 18, 3, padding=1, groups=18), nn.Conv2d(18, 6, 1, bias=False)
        self.reduce, self.expand, self.head = nn.Conv2d(18, 5, 1), nn.Conv2d(5, 18, 1), nn.Conv2d(6, 5, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = F.hardswish(self.deep(F.relu6(self.up(x))))
        y = y * F.hardsigmoid(self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(y, 1)))))
        return self.head(x + self.down(y))


class _Levels(nn.Module):
    """Images of two sizes, of which the smaller one is enlarged and added to the other."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(4, 18, 1), nn.Conv2d(4, 18, 3, stride=2, padding=1), nn.Conv2d(18, 7, 1)

    def forward(self, x):
        return self.c(F.relu(self.a(x) + F.interpolate(self.b(x), scale_factor=2.0)))


class _Scaled(nn.Module):
    """A factor and a term for each of 18 channels, as constants."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(4, 18, 1), nn.Conv2d(18, 18, 3, padding=1, groups=18), nn.Conv2d(18, 7, 1)
        self.factor, self.term = nn.Parameter(torch.rand(18, 1, 1)), nn.Parameter(torch.rand(1, 18, 1, 1))

    def forward(self, x):
        x = F.relu(self.a(x))
        return self.c(F.gelu(self.b(x) * self.factor + x) + F.gelu(x + self.term))


class _Joined(nn.Module):
    """Values of 6 channels that a concatenation and a split join to others."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 7, 1)

    def forward(self, x):
        left, right = torch.cat([self.a(x), self.b(x)], 1).chunk(2, 1)
        return self.c(left + right)


class _Twice(nn.Module):
    """One layer that is called twice: two convolutions read one weight."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 1)

    def forward(self, x):
        return self.b(F.relu(self.b(F.relu(self.a(x)))))


def _weights(path):
    graph = onnx.load(path).graph
    shapes = {i.name: list(i.dims) for i in graph.initializer}
    pairs = {n.output[0]: shapes.get(n.input[0]) for n in graph.node if n.op_type == "DequantizeLinear"}
    return {n.name: pairs[n.input[1]] for n in graph.node if n.op_type == "Conv"}


def _plain(monkeypatch):
    monkeypatch.setattr(rewrite, "fill_vectors", lambda model, **_: None)


@pytest.mark.parametrize("net", [_Block, _Joined, _Levels, _Scaled, _Twice])
def test_the_result_stays(net, build, monkeypatch):
    torch.manual_seed(0)
    net, x = net(), torch.randn(3, 3 if net is _Block else 4, 8, 8)
    filled = build(net, x)
    _plain(monkeypatch)
    plain = build(net, x)
    assert np.array_equal(filled.found, plain.found)
    assert filled.kernels - plain.kernels in ({}, {"Pad u8": 1})
    assert filled.steps < 1.01


def test_which_channels_are_added(build):
    torch.manual_seed(0)
    built = build(_Block(), torch.randn(3, 3, 9, 9))
    assert list(_weights(built.path).values()) == [
        [16, 4, 3, 3],  # the image has a fourth channel, the sum sixteen
        [32, 16, 1, 1],
        [32, 1, 3, 3],
        [16, 32, 1, 1],
        [32, 16, 1, 1],
        [16, 32, 1, 1],
        [5, 16, 1, 1],  # the output keeps its own
    ]


def test_levels_of_two_sizes_are_added(build):
    torch.manual_seed(0)
    assert list(_weights(build(_Levels(), torch.randn(3, 4, 8, 8)).path).values()) == [
        [20, 4, 1, 1],
        [20, 4, 3, 3],
        [7, 20, 1, 1],
    ]


@pytest.mark.parametrize(
    ("net", "expected"),
    [(_Joined, [[6, 4, 1, 1], [6, 4, 1, 1], [7, 6, 1, 1]]), (_Twice, [[6, 4, 1, 1], [6, 6, 1, 1], [6, 6, 1, 1]])],
)
def test_what_keeps_its_channels(net, expected, build):
    torch.manual_seed(0)
    assert list(_weights(build(net(), torch.randn(3, 4, 9, 9)).path).values()) == expected


@pytest.mark.parametrize(
    ("channels", "size", "expected"), [(3, 5, 4), (2, 3, 4), (1, 3, 1), (3, 1, 3), (3, 8, 3), (5, 3, 5)]
)
def test_an_image_gets_a_fourth_channel(channels, size, expected, build):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(channels, 8, size), nn.ReLU(), nn.Conv2d(8, 4, 1))
    built = build(net, torch.randn(2, channels, 9, 9))
    first, _ = _weights(built.path).values()
    assert first == [16, expected, size, size]
    assert built.steps < 1.01
