"""Convolutions that pad their input so that its size is divided by the stride, as mmcv's do."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.conv import DynamicConv2d


class Conv2dAdaptivePadding(nn.Conv2d):
    """A convolution whose output is ceil(H / stride), ceil(W / stride); ``padding`` is taken as 0.

    Zeros are added half before and half after, one more after where the number is odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(in_channels, out_channels, kernel_size, *args, **kwargs)
        self.padding = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride))."""
        return super().forward(_padded(x, self.weight, self.stride, self.dilation))


class DynamicConv2dAdaptivePadding(DynamicConv2d):
    """``Conv2dAdaptivePadding`` of elastic width; takes its arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.padding = (0, 0)

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """The plain convolution with adaptive padding."""
        return Conv2dAdaptivePadding

    @classmethod
    def check_convertible(cls, module: nn.Module) -> None:
        """Raise ``ModelError`` where ``module`` is no convolution with adaptive padding, ours or mmcv's."""
        if not isinstance(module, nn.Conv2d) or type(module).__name__ != Conv2dAdaptivePadding.__name__:
            raise ModelError(f"{cls.__name__} stands in for Conv2dAdaptivePadding, got {type(module).__name__}")

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Any, groups: int) -> Tensor:
        return super()._convolve(_padded(x, weight, self.stride, self.dilation), weight, bias, padding, groups)


def _padded(x: Tensor, weight: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    pads: list[int] = []
    for size, kernel, step, spread in zip(x.shape[-2:], weight.shape[-2:], stride, dilation, strict=True):
        total = max((math.ceil(size / step) - 1) * step + (kernel - 1) * spread + 1 - size, 0)
        pads = [total // 2, total - total // 2, *pads]
    return functional.pad(x, pads) if any(pads) else x
