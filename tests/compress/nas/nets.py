"""Small supernets without batch norms, whose gradients can be written down."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from razordeploy.subnet.dynamic_ops.linear import DynamicLinear
from razordeploy.subnet.mutables.channel import OneShotMutableChannel
from razordeploy.subnet.mutables.container import MutableChannelContainer
from razordeploy.subnet.mutables.diff_module import DiffMutableOP, OneHotMutableOP
from razordeploy.subnet.mutables.one_shot_module import OneShotMutableOP


class Tanh(nn.Module):
    """A smooth operation with weights of its own."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return torch.tanh(self.linear(x))


def operations(width):
    return nn.ModuleDict({"tanh": Tanh(width), "linear": nn.Linear(width, width), "skip": nn.Identity()})


class Chain(nn.Module):
    """A linear layer, two choices, a classifier: images (N, 1, 2, 2) -> logits (N, 3)."""

    def __init__(self, mutable, width=4):
        super().__init__()
        self.stem = nn.Linear(4, width)
        self.first = mutable(operations(width))
        self.second = mutable(operations(width))
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.second(self.first(self.stem(x.flatten(1)))))


def one_shot_chain(width=4):
    return Chain(OneShotMutableOP, width)


def diff_chain(width=4):
    return Chain(DiffMutableOP, width)


def one_hot_chain(width=4):
    return Chain(OneHotMutableOP, width)


class Elastic(nn.Module):
    """Two linear layers of elastic inner width, and dropout between them: (N, 1, 2, 2) -> logits (N, 3)."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.width = OneShotMutableChannel(8, [2, 4, 6, 8])
        self.fc1, self.fc2 = DynamicLinear(4, 8), DynamicLinear(8, 3)
        MutableChannelContainer.register_mutable_channel_to_module(self.fc1, self.width, True)
        MutableChannelContainer.register_mutable_channel_to_module(self.fc2, self.width, False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return self.fc2(self.dropout(functional.gelu(self.fc1(x.flatten(1)))))


def images(count=6, seed=0, dtype=torch.float32):
    return torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(seed)).to(dtype)


def targets(count=6):
    return torch.arange(count) % 3


def batch(count=6, seed=0, dtype=torch.float32):
    return images(count, seed, dtype), targets(count)
