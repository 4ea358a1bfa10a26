"""Sums of convolution kernels: what several layers over one input compute, as the kernel of one layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A convolution of any number of axes; a linear layer is one of none."""

    weight: torch.Tensor
    """``(out, in / groups, *sizes)``."""
    bias: torch.Tensor | None
    """``(out,)``."""
    sign: int = 1
    """-1: weight and bias are subtracted."""
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    """Zeros before and behind, per axis."""
    dilation: tuple[int, ...]
    groups: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Taps per axis."""
        return tuple(self.weight.shape[2:])

    @property
    def channels(self) -> tuple[int, int]:
        """``(in, out)``."""
        return int(self.weight.shape[1]) * self.groups, int(self.weight.shape[0])

    @property
    def spare(self) -> tuple[int, ...]:
        """Cells that padding adds beyond what the kernel's reach takes: with the stride, what fixes the output size."""
        reach = (d * (k - 1) for d, k in zip(self.dilation, self.sizes, strict=True))
        return tuple(2 * p - r for p, r in zip(self.padding, reach, strict=True))


def diagonal(scale: torch.Tensor, shift: torch.Tensor, rank: int) -> Kernel:
    """``x * scale + shift`` per channel, both float64 ``(C,)``, as a depthwise convolution of one tap."""
    return Kernel(
        weight=scale.reshape(-1, *[1] * (rank + 1)),
        bias=shift,
        stride=(1,) * rank,
        padding=(0,) * rank,
        dilation=(1,) * rank,
        groups=len(scale),
    )


def can_add(kernels: Sequence[Kernel]) -> bool:
    """Whether one kernel computes the sum of all, for inputs of any size, with no more multiplications than they take.

    Outputs have to lie on the same cells; and a dense layer and a large depthwise one are cheaper apart.
    """
    first = kernels[0]
    if any((k.channels, k.stride, k.spare) != (first.channels, first.stride, first.spare) for k in kernels):
        return False
    return math.prod(_Grid.of(kernels).shape) <= sum(k.weight.numel() for k in kernels)


def added(kernels: Sequence[Kernel]) -> Kernel:
    """The sum of ``kernels``, in float64; they are as :func:`can_add` asks for."""
    grid = _Grid.of(kernels)
    weight = torch.zeros(grid.shape, dtype=torch.float64)
    bias = torch.zeros(grid.shape[0], dtype=torch.float64)
    rows = torch.arange(grid.shape[0])[:, None]
    for kernel in kernels:
        taps = tuple(grid.taps(kernel))
        index: tuple[Any, ...] = (slice(None), slice(None), *taps)
        if kernel.groups != grid.groups:
            index = (rows, _columns(kernel, grid.groups), *taps)
        weight[index] += kernel.sign * kernel.weight.double()
        if kernel.bias is not None:
            bias += kernel.sign * kernel.bias.double()
    return Kernel(
        weight=weight,
        bias=bias,
        stride=kernels[0].stride,
        padding=grid.padding,
        dilation=grid.steps,
        groups=grid.groups,
    )


def rounding_db(kernel: Kernel) -> float:
    """Energy of the weights over that of their rounding to 8 bits, symmetric, with a scale for each output, in dB.

    A weight's rounding error is taken as uniform over a step, of variance ``step**2 / 12``.
    """
    rows = kernel.weight.double().flatten(1)
    noise = (rows.abs().amax(1) / 127).square().sum() * rows.shape[1] / 12
    return float(10 * torch.log10(rows.square().sum() / noise.clamp_min(1e-300)))


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """The smallest kernel with a tap wherever one of several kernels has one."""

    shape: tuple[int, ...]
    groups: int
    padding: tuple[int, ...]
    steps: tuple[int, ...]
    """Dilation per axis."""

    @classmethod
    def of(cls, kernels: Sequence[Kernel]) -> _Grid:
        # Of equal spare, the kernel with the most padding reaches over all others, on both sides.
        first = kernels[0]
        padding = tuple(max(sizes) for sizes in zip(*(k.padding for k in kernels), strict=True))
        reach = tuple(2 * p - spare for p, spare in zip(padding, first.spare, strict=True))
        steps = tuple(_step(kernels, axis, padding[axis], reach[axis]) for axis in range(len(padding)))
        groups = reduce(math.gcd, (k.groups for k in kernels))
        inputs, outputs = first.channels
        sizes = (r // step + 1 for r, step in zip(reach, steps, strict=True))
        return cls(shape=(outputs, inputs // groups, *sizes), groups=groups, padding=padding, steps=steps)

    def taps(self, kernel: Kernel) -> Iterator[slice]:
        """Per axis, where the taps of ``kernel`` lie."""
        for axis, size in enumerate(kernel.sizes):
            start = (self.padding[axis] - kernel.padding[axis]) // self.steps[axis]
            apart = kernel.dilation[axis] // self.steps[axis] if size > 1 else 1
            yield slice(start, start + (size - 1) * apart + 1, apart)


def _step(kernels: Sequence[Kernel], axis: int, padding: int, reach: int) -> int:
    """The largest distance of taps that meets every tap of every kernel."""
    offsets = [padding - k.padding[axis] for k in kernels]
    apart = [k.dilation[axis] for k in kernels if k.sizes[axis] > 1]
    return reduce(math.gcd, [*offsets, *apart, reach]) or 1


def _columns(kernel: Kernel, groups: int) -> torch.Tensor:
    """Where the inputs of every output ``(out, in / kernel.groups)`` lie among those of its group of ``groups``."""
    inputs, outputs = kernel.channels
    rows = torch.arange(outputs)
    first = rows // (outputs // kernel.groups) * (inputs // kernel.groups)
    group = rows // (outputs // groups) * (inputs // groups)
    return (first - group)[:, None] + torch.arange(inputs // kernel.groups)
