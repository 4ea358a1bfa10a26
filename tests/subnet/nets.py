"""Small networks with the structures that tie channels together."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from razordeploy.subnet.mutables.one_shot_module import OneShotMutableOP


class ConvNet(nn.Module):
    """Residual add, depthwise convolution, concatenation and flattening."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.expand = nn.Conv2d(8, 12, 1)
        self.bn2 = nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.project = nn.Conv2d(12, 8, 1)
        self.bn3 = nn.BatchNorm2d(8)
        self.branch = nn.Conv2d(8, 6, 3, padding=1)
        self.bn4 = nn.BatchNorm2d(14)
        self.last = nn.Conv2d(14, 10, 1)
        self.hidden = nn.Linear(40, 9)
        self.out = nn.Linear(9, 4)

    def forward(self, x):
        x = functional.relu(self.bn1(self.stem(x)))
        y = functional.relu(self.bn2(self.expand(x)))
        x = x + self.bn3(self.project(functional.relu6(self.depthwise(y))))
        x = self.bn4(torch.cat([x, self.branch(x)], 1))
        x = functional.adaptive_avg_pool2d(functional.relu(self.last(x)), 2).flatten(1)
        return self.out(functional.relu(self.hidden(x)))


class Tokens(nn.Module):
    """A transformer block whose code fixes the number of heads and whose class token is a bare parameter."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.norm1 = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.proj = nn.Linear(16, 16)
        self.norm2 = nn.LayerNorm(16)
        self.up = nn.Linear(16, 32)
        self.down = nn.Linear(32, 16)
        self.norm3 = nn.LayerNorm(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        n, length, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, length, 3, 4, 4).permute(2, 0, 3, 1, 4)
        a = functional.softmax(q @ k.transpose(-2, -1) / 2, dim=-1) @ v
        x = x + self.proj(a.transpose(1, 2).reshape(n, length, 16))
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return self.head(self.norm3(x)[:, 0])


class Shuffle(nn.Module):
    """Two branches, concatenated, shuffled and split again, as in ShuffleNetV2."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(3, 8, 3, padding=1)
        self.right = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(16, 6, 1)
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.cat([self.left(x).relu(), self.right(x).relu()], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        a, b = x.chunk(2, dim=1)
        x = torch.cat([a, self.inner(b).relu()], 1)
        return self.out(self.last(x).relu().mean((2, 3)))


def randomise(model):
    """Statistics and affine parameters that hide nothing: the neutral ones are the same for every channel."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if "running_var" in name:
                value.copy_(torch.rand_like(value) + 0.5)
            elif value.dtype.is_floating_point and value.dim() == 1:
                value.copy_(torch.randn_like(value) * 0.3 + 1)
    return model.eval()


class Paths(nn.Module):
    """Four layers of eight operations each."""

    def __init__(self):
        super().__init__()
        layers = [nn.ModuleDict({name: nn.Identity() for name in "abcdefgh"}) for _ in range(4)]
        self.layers = nn.ModuleList(OneShotMutableOP(operations) for operations in layers)
