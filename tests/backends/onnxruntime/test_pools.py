"""Average pools run as depthwise convolutions, where every window has one size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

_POOLS = {
    "plain": (lambda: nn.AvgPool2d(2), True),
    "padded": (lambda: nn.AvgPool2d(3, 2, 1), True),
    "oblong": (lambda: nn.AvgPool2d((3, 1), 1, (1, 0)), True),
    "borders left out": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), False),
    "a cut last window": (lambda: nn.AvgPool2d(2, ceil_mode=True), False),
    "a cut last window, padded": (lambda: nn.AvgPool2d(4, 3, 1, ceil_mode=True), False),
    "a cut last window, borders left out": (lambda: nn.AvgPool2d(4, 3, 1, True, False), False),
    "whole windows after all": (lambda: nn.AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False), True),
}


@pytest.mark.parametrize("kind", _POOLS)
def test_an_average_is_a_convolution(kind, build):
    torch.manual_seed(0)
    pool, changed = _POOLS[kind]
    net = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), pool(), nn.Conv2d(6, 4, 1))
    built = build(net, torch.randn(3, 4, 9, 9))
    assert not built.floats, built.kernels
    assert built.kernels["QLinearConv u8"] == 2 + changed
    assert built.kernels["QLinearAveragePool u8"] == (not changed)
    assert built.steps < 1.01


def test_of_sequences(build):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(4, 6, 3), nn.AvgPool1d(2), nn.Conv1d(6, 4, 1))
    built = build(net, torch.randn(3, 4, 9))
    assert built.kernels["QLinearConv u8"] == 3 and not built.floats, built.kernels
    assert built.steps < 1.01
