"""Units through shuffles, reshapes, groups of statistics, tables and operators that nobody knows."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from razordeploy.errors import UsageError
from razordeploy.subnet.tracer.axes import leaf


def conv(i, o, k=1, **kw):
    return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, bias=False, **kw), nn.BatchNorm2d(o), nn.ReLU())


def shuffle(x, groups):
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width).transpose(1, 2).contiguous()
    return x.view(batch, channels, height, width)


class ShuffleV2(nn.Module):
    """A stage of ShuffleNetV2: its half is cut into unequal quarters again and again."""

    def __init__(self, half, blocks):
        super().__init__()
        self.stem = conv(3, 6)
        self.left = nn.Sequential(conv(6, 6, 3, groups=6), conv(6, half))
        self.right = nn.Sequential(conv(6, half), conv(half, half, 3, groups=half), conv(half, half))
        self.branches = nn.ModuleList(
            nn.Sequential(conv(half, half), conv(half, half, 3, groups=half), conv(half, half)) for _ in range(blocks)
        )
        self.last, self.fc = conv(2 * half, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        x = shuffle(torch.cat([self.left(x), self.right(x)], 1), 2)
        for branch in self.branches:
            kept, moved = x.chunk(2, 1)
            x = shuffle(torch.cat([kept, branch(moved)], 1), 2)
        return self.fc(self.last(x).mean((2, 3)))


class ShuffleV1(nn.Module):
    """Grouped convolutions with a shuffle between: a group reads from every group before it."""

    def __init__(self, groups=3, width=15, inner=21):
        super().__init__()
        self.stem = conv(3, width)
        self.down = nn.ModuleList(conv(width, inner, groups=groups) for _ in range(2))
        self.depth = nn.ModuleList(conv(inner, inner, 3, groups=inner) for _ in range(2))
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inner, width, 1, groups=groups, bias=False), nn.BatchNorm2d(width))
            for _ in range(2)
        )
        self.groups, self.fc = groups, nn.Linear(width, 4)

    def forward(self, x):
        x = self.stem(x)
        for down, depth, up in zip(self.down, self.depth, self.up, strict=True):
            x = F.relu(x + up(depth(shuffle(down(x), self.groups))))
        return self.fc(x.mean((2, 3)))


class Norms(nn.Module):
    """Group norms: many narrow groups, a few wide ones, and one over all channels."""

    def __init__(self, groups):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 16, 3), nn.GroupNorm(groups, 16), nn.Conv2d(16, 6, 1)
        self.instance, self.fc = nn.InstanceNorm2d(6, affine=True), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.instance(self.b(F.relu(self.norm(self.a(x))))).square().mean((2, 3)))


class Flattened(nn.Module):
    """A channel becomes a block of features, or one in every so many."""

    def __init__(self, last):
        super().__init__()
        self.conv, self.last = conv(3, 8, 3), last
        self.fc1, self.fc2 = nn.Linear(8 * 16, 12), nn.Linear(12, 4)

    def forward(self, x):
        x = F.max_pool2d(self.conv(x), 2)
        x = x.permute(0, 2, 3, 1).flatten(1) if self.last else x.flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


class Pixels(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 24, 3), conv(6, 5, 3)
        self.c, self.fc = conv(20, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        x = F.pixel_unshuffle(self.b(F.pixel_shuffle(self.a(x), 2)), 2)
        return self.fc(self.c(x).mean((2, 3)))


class Moved(nn.Module):
    """Channels in, then out of, other places: grouped by a reshape, repeated, unfolded, stacked."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 12, 3), nn.Conv2d(24, 6, 1)
        self.table, self.c, self.fc = nn.Linear(6 * 9, 10), nn.Linear(20, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = self.a(x)
        x = x.view(x.shape[0], 3, 4, *x.shape[2:]).permute(0, 2, 1, 3, 4).reshape(x.shape)
        x = self.b(x.repeat(1, 2, 1, 1))
        x = self.table(F.unfold(x, 3).transpose(1, 2)).mean(1)
        return self.fc(self.c(torch.stack([x, x.relu()], -1).flatten(1)))


class Words(nn.Module):
    """Embedding and output layer share one weight."""

    def __init__(self):
        super().__init__()
        self.embed, self.fc1, self.fc2 = nn.Embedding(9, 8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, words):
        x = self.embed(words)
        return self.head(x + self.fc2(F.gelu(self.fc1(x))))


class Volumes(nn.Module):
    """One and three dimensions, and channels of a 1-D convolution that come from a permutation."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv3d(3, 8, 2), nn.BatchNorm3d(8), nn.ConvTranspose1d(8, 6, 2)
        self.gate, self.fc = nn.Conv1d(6, 6, 1, groups=6), nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.a(torch.stack([x, -x], 2)))).flatten(2)
        x = self.b(x)
        return self.fc((x * self.gate(x)).amax(-1))


PATTERNS = {
    "shuffle_v2_even": lambda: ShuffleV2(8, 2),
    "shuffle_v2_odd": lambda: ShuffleV2(11, 4),
    "shuffle_v1": ShuffleV1,
    "shuffle_v1_two_groups": lambda: ShuffleV1(2, 8, 14),
    "narrow_group_norm": lambda: Norms(8),
    "wide_group_norm": lambda: Norms(4),
    "whole_norm": lambda: Norms(1),
    "flatten": lambda: Flattened(last=False),
    "flatten_channels_last": lambda: Flattened(last=True),
    "pixel_shuffle": Pixels,
    "moved": Moved,
    "volumes": Volumes,
}


@pytest.mark.parametrize("name", PATTERNS)
def test_units_may_be_permuted_and_zeros_removed(name, oracle, x):
    check = oracle(PATTERNS[name](), x)
    assert check.permute() >= 2
    check.remove_zeros(0.5)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.9])
def test_a_shuffle_takes_the_nearest_possible_width(share, oracle, x):
    oracle(ShuffleV2(11, 4), x).remove_zeros(share)


def test_a_width_at_which_a_shuffle_would_mix_channels_up_is_refused(oracle, x):
    graph = oracle(ShuffleV2(11, 4), x).graph
    assert graph.choices("left.1.0_(0, 11)_11") == [1, 2, 3, 4, 9, 11]
    with pytest.raises(UsageError, match="8 of 11 is no possible width; 9 is"):
        graph.select({"left.1.0_(0, 11)_11": 8})


def test_shared_embedding(oracle):
    check = oracle(Words(), torch.arange(8).reshape(2, 4))
    assert "embed_(0, 8)_8" in check.graph.prunable
    check.permute()
    check.remove_zeros(0.5)


def test_a_shuffled_stage_is_one_unit(oracle, x):
    check = oracle(ShuffleV2(11, 4), x)
    assert check.graph.units["left.1.0_(0, 11)_11"].strands == 6


class Strange(nn.Module):
    """``torch.fft`` mixes all channels; sorting names positions."""

    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.fc, self.how = conv(3, 8), conv(8, 6), nn.Linear(6, 4), how

    def forward(self, x):
        x = self.a(x)
        if self.how == "fft":
            x = torch.fft.fft(x, dim=1).real
        elif self.how == "sort":
            x = x.sort(1).values
        elif self.how == "cumsum":
            x = x.cumsum(1)
        elif self.how == "flip":
            x = x.flip(1)
        elif self.how == "constant":
            x = x * torch.arange(8.0).to(x).view(1, 8, 1, 1)
        elif self.how == "pick":
            x = x + x[:, 2:3]
        elif self.how == "mask":
            x = torch.stack([x.flatten(2)[:, torch.tensor([7, 1, 2, 3, 4, 5, 6, 0])].sum(2)] * 1, -1)[..., None].expand(
                -1, -1, 8, 8
            )
        elif self.how == "transpose":
            x = x + x.transpose(1, 2)
        return self.fc(self.b(x).mean((2, 3)))


REASONS = {
    "fft": "no rule",
    "sort": "positions along it are returned",
    "cumsum": "order of its elements counts",
    "flip": "reordered by position",
    "constant": "table that the code makes",
    "mask": "looked up by position",
    "transpose": "input of the model",
}


@pytest.mark.parametrize("how", REASONS)
def test_what_depends_on_positions_is_refused_with_a_reason(how, oracle, x):
    check = oracle(Strange(how), x)
    unit = check.graph.units["a.0_(0, 8)_8"]
    assert not unit.prunable and REASONS[how] in unit.reason
    assert set(check.graph.prunable) == {"b.0_(0, 6)_6"}
    check.permute()


def test_a_picked_channel_splits_its_unit(oracle, x):
    check = oracle(Strange("pick"), x)
    assert {"a.0_(0, 2)_2", "a.0_(3, 8)_5", "b.0_(0, 6)_6"} <= set(check.graph.prunable)
    check.permute()
    check.remove_zeros(0.5)


def test_the_oracle_sees_a_member_that_is_missing(oracle, x):
    """A unit that forgets one of its tensors changes the function: the check above can fail."""
    check = oracle(Flattened(last=False), x)
    state = check.graph.trace.state
    state["conv.0.weight"] = [leaf(axis.size) for axis in state["conv.0.weight"]]
    with pytest.raises(AssertionError, match="permuting"):
        check.permute()
