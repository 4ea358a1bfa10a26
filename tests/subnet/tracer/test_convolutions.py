"""Units of convolutional patterns, held against permutation and removal of zeros."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F


def conv(i, o, k=3, **kw):
    return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, bias=False, **kw), nn.BatchNorm2d(o), nn.ReLU())


class Head(nn.Module):
    """A body, global pooling and a classifier."""

    def __init__(self, body, channels):
        super().__init__()
        self.body = body
        self.fc = nn.Linear(channels, 4)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b, self.c = conv(3, 8), conv(8, 6), conv(6, 8), conv(8, 8)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(x + self.b(self.a(x)))
        return x + self.c(x)


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv(3, 6)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(6 + 4 * i), nn.ReLU(), nn.Conv2d(6 + 4 * i, 4, 3, padding=1)) for i in range(3)
        )
        self.out = conv(18, 8, 1)

    def forward(self, x):
        found = [self.stem(x)]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        return self.out(torch.cat(found, 1))


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.down, self.up = conv(3, 12), nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)

    def forward(self, x):
        x = self.stem(x)
        return x * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.d, self.b = conv(3, 12), conv(12, 12, groups=12), conv(12, 8, 1)
        self.m = nn.Conv2d(8, 16, 3, padding=1, groups=8)

    def forward(self, x):
        return self.m(self.b(self.d(self.a(x))))


class Grouped(nn.Module):
    def __init__(self, groups, inside, out):
        super().__init__()
        self.a = conv(3, groups * inside)
        self.g = nn.Conv2d(groups * inside, groups * out, 3, padding=1, groups=groups)
        self.b = conv(groups * out, 8)

    def forward(self, x):
        return self.b(self.g(self.a(x)))


class Transposed(nn.Module):
    def __init__(self, groups):
        super().__init__()
        self.a = conv(3, 8)
        self.t = nn.ConvTranspose2d(8, 12, 2, stride=2, groups=groups)
        self.b = conv(12, 8)

    def forward(self, x):
        return self.b(self.t(self.a(x)))


class Reused(nn.Module):
    """One convolution on two inputs ties both of them."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.shared = conv(3, 8), conv(3, 8), conv(8, 6)
        self.c = conv(12, 8)

    def forward(self, x):
        return self.c(torch.cat([self.shared(self.a(x)), self.shared(self.b(x))], 1))


class Res2(nn.Module):
    """Hierarchical scales: each piece is added to the one before."""

    def __init__(self):
        super().__init__()
        self.a = conv(3, 16, 1)
        self.scales = nn.ModuleList(conv(4, 4) for _ in range(3))
        self.b = conv(16, 8, 1)

    def forward(self, x):
        pieces = torch.split(self.a(x), 4, 1)
        found = [self.scales[0](pieces[0])]
        for piece, scale in zip(pieces[1:3], self.scales[1:], strict=True):
            found.append(scale(found[-1] + piece))
        return self.b(torch.cat([*found, pieces[3]], 1))


class SplitAttention(nn.Module):
    """ResNeSt: two radix splits of one grouped convolution, weighted by a softmax over the radix."""

    def __init__(self):
        super().__init__()
        self.a, self.conv = conv(3, 8, 1), conv(8, 16, groups=2)
        self.fc1, self.fc2, self.b = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 16, 1), conv(8, 8, 1)

    def forward(self, x):
        x = self.conv(self.a(x))
        batch = x.shape[0]
        splits = x.view(batch, 2, -1, *x.shape[2:])
        gap = F.adaptive_avg_pool2d(splits.sum(1), 1)
        weight = self.fc2(F.relu(self.fc1(gap))).view(batch, 1, 2, -1).transpose(1, 2)
        weight = weight.softmax(1).reshape(batch, -1).view(batch, -1, 1, 1)
        return self.b((weight.view(batch, 2, -1, 1, 1) * splits).sum(1))


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.flatten(1).std(1).reshape(-1, 1, 1, 1) + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Padded(nn.Module):
    """Option A: a shortcut padded with zero channels on both sides."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 6), conv(6, 10), conv(10, 8)

    def forward(self, x):
        x = self.a(x)
        return self.c(self.b(x) + F.pad(x, (0, 0, 0, 0, 2, 2)))


class Partitioned(nn.Module):
    """RepMLP: one fully connected layer a set of channels, over the positions of a window."""

    def __init__(self, sets=4, window=4):
        super().__init__()
        inside = sets * window * window
        self.sets, self.window = sets, window
        self.a, self.b = conv(3, 12), conv(12, 8)
        self.mix, self.bn = nn.Conv2d(inside, inside, 1, groups=sets, bias=False), nn.BatchNorm2d(sets)

    def forward(self, x):
        x = self.a(x)
        (batch, channels, height, width), k = x.shape, self.window
        x = x.reshape(batch, channels, height // k, k, width // k, k).permute(0, 2, 4, 1, 3, 5)
        y = self.mix(x.reshape(-1, self.sets * k * k, 1, 1)).reshape(-1, self.sets, k, k)
        y = self.bn(y).reshape(batch, height // k, width // k, channels, k, k)
        return self.b(y.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, height, width))


PATTERNS = {
    "chain": lambda: (nn.Sequential(conv(3, 8), conv(8, 12), conv(12, 8)), 8),
    "residual": lambda: (Residual(), 8),
    "dense": lambda: (Dense(), 8),
    "squeeze_excite": lambda: (SqueezeExcite(), 12),
    "depthwise": lambda: (Depthwise(), 16),
    "wide_groups": lambda: (Grouped(2, 8, 6), 8),
    "narrow_groups": lambda: (Grouped(8, 2, 3), 8),
    "transposed": lambda: (Transposed(1), 8),
    "transposed_wide_groups": lambda: (Transposed(2), 8),
    "transposed_depthwise": lambda: (Transposed(4), 8),
    "reused": lambda: (Reused(), 8),
    "res2": lambda: (Res2(), 8),
    "split_attention": lambda: (SplitAttention(), 8),
    "weight_standardised": lambda: (nn.Sequential(conv(3, 8), Standardised(8, 8, 3), conv(8, 8)), 8),
    "partitioned": lambda: (Partitioned(), 8),
    "padded_shortcut": lambda: (Padded(), 8),
    "prelu": lambda: (nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 8, 1), nn.PReLU()), 8),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_units_may_be_permuted_and_zeros_removed(name, oracle, x):
    body, channels = PATTERNS[name]()
    check = oracle(Head(body, channels), x)
    assert check.permute() >= 2
    check.remove_zeros(0.5)


def test_groups_that_are_positions_inside_go_as_a_whole(oracle, x):
    graph = oracle(Head(Partitioned(), 8), x).graph
    readers = [unit for unit in graph.prunable.values() if any("mix.weight" in m.tensor for m in unit.members)]
    assert [(unit.channels, unit.kind) for unit in readers] == [(4, "groups")]
    # One set: what is left of the layer's shape are positions.
    fixed = oracle(Head(Partitioned(sets=1), 8), x).graph.fixed
    assert "spatial" in next(reason for name, reason in fixed.items() if "mix.weight" in name)
