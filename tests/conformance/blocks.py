"""Building blocks that several patterns share."""

from __future__ import annotations

from torch import nn

IMAGE = (2, 8, 8, 8)
"""``(N, C, H, W)`` of a small image."""


def conv_bn(
    channels_in: int,
    channels_out: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    act: nn.Module | None = None,
) -> nn.Sequential:
    """Convolution without bias, batch norm and, where given, an activation."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), *([act] if act is not None else []))
