"""What the predecessor's documentation records and delivers."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn


def toy_func() -> int:
    return random.randint(0, 1_000_000)


def toy_list_func() -> list[int]:
    return [random.randint(0, 1000) for _ in range(3)]


def toy_sum(a: int, b: int = 2, *rest: int, scale: int = 1, **more: int) -> int:
    return scale * (a + b + sum(rest) + sum(more.values()))


class Toy:
    def toy_func(self) -> int:
        return random.randint(0, 1_000_000)

    def toy_sum(self, a: int, b: int = 2) -> int:
        return a + b

    @staticmethod
    def static(a: int) -> int:
        return a + random.randint(1, 1_000_000)

    @classmethod
    def made(cls, a: int = 5) -> tuple[str, int]:
        return cls.__name__, a


class Child(Toy):
    pass


class ToyModel(nn.Module):
    def __init__(self, toy: Any = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 1, 1)
        self.conv2 = nn.Conv2d(1, 1, 1)
        self.toy = toy

    def forward(self, x: Tensor, shift: float = 1.0) -> Tensor:
        out = self.conv2(self.conv1(x) + self.conv1(x + shift))
        return out if self.toy is None else out + self.toy.toy_func()


class InPlace(nn.Module):
    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm(x))


def image() -> Tensor:
    return torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
