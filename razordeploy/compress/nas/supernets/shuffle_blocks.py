"""ShuffleNetV2's units, as SPOS searches them (arXiv 1807.11164, 1904.00420)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.compress.nas.supernets.layers import Config, ConvModule, channel_shuffle
from razordeploy.compress.nas.supernets.operation import BaseOP, recomputed
from razordeploy.errors import RecipeError


class ShuffleUnit(BaseOP, ABC):
    """Half of the channels go through ``branch2``; at stride 1 the others stay, else they go through ``branch1``.

    Args:
        in_channels: as of ``BaseOP``, like ``out_channels``, ``stride`` and ``init_cfg``.
        out_channels: see there.
        stride: see there.
        conv_cfg: of every convolution.
        norm_cfg: of every norm.
        act_cfg: of every activation.
        with_cp: recompute activations in the backward pass instead of keeping them.
        init_cfg: see there.
        kernel_size: of depthwise convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        conv_cfg: Config = None,
        norm_cfg: Config = "BN",
        act_cfg: Config = "ReLU",
        with_cp: bool = False,
        init_cfg: Any = None,
        *,
        kernel_size: int = 3,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, init_cfg)
        half = out_channels // 2
        if out_channels % 2 or (stride == 1 and in_channels != 2 * half):
            raise RecipeError(
                f"{type(self).__name__}: expected an even number of output channels, and at stride 1 as many inputs, "
                f"got {in_channels} -> {out_channels} at stride {stride}"
            )
        self.with_cp = with_cp
        layer = partial(ConvModule, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        if stride > 1:
            self.branch1 = nn.Sequential(
                layer(in_channels, in_channels, kernel_size, stride, groups=in_channels, act_cfg=None),
                layer(in_channels, half, 1, act_cfg=act_cfg),
            )
        self.branch2 = self._branch(in_channels if stride > 1 else half, half, kernel_size, act_cfg, layer)

    @abstractmethod
    def _branch(self, inputs: int, outputs: int, kernel_size: int, act_cfg: Config, layer: Any) -> nn.Sequential: ...

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        return recomputed(self._run, x, self.with_cp)

    def _run(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            parts = (self.branch1(x), self.branch2(x))
        else:
            kept, used = x.chunk(2, dim=1)
            parts = (kept, self.branch2(used))
        return channel_shuffle(torch.cat(parts, dim=1), 2)


class ShuffleBlock(ShuffleUnit):
    """A unit of elastic kernel size: 1x1, depthwise, 1x1.

    Args:
        kernel_size: of the depthwise convolutions.
        args: as of ``ShuffleUnit``, and so are ``kwargs``.
        kwargs: see there.
    """

    def __init__(self, kernel_size: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, kernel_size=kernel_size)

    def _branch(self, inputs: int, outputs: int, kernel_size: int, act_cfg: Config, layer: Any) -> nn.Sequential:
        return nn.Sequential(
            layer(inputs, outputs, 1, act_cfg=act_cfg),
            layer(outputs, outputs, kernel_size, self.stride, groups=outputs, act_cfg=None),
            layer(outputs, outputs, 1, act_cfg=act_cfg),
        )


class ShuffleXception(ShuffleUnit):
    """A unit with three depthwise separable convolutions of 3x3; takes the arguments of ``ShuffleUnit`` but
    ``kernel_size``.
    """

    def _branch(self, inputs: int, outputs: int, kernel_size: int, act_cfg: Config, layer: Any) -> nn.Sequential:
        return nn.Sequential(
            _Separable(inputs, outputs, self.stride, act_cfg, layer),
            _Separable(outputs, outputs, 1, act_cfg, layer),
            _Separable(outputs, outputs, 1, act_cfg, layer),
        )


class _Separable(nn.Module):
    """3x3 depthwise and 1x1, an activation after the second."""

    def __init__(self, inputs: int, outputs: int, stride: int, act_cfg: Config, layer: Any) -> None:
        super().__init__()
        self.depthwise_conv = layer(inputs, inputs, 3, stride, groups=inputs, act_cfg=None)
        self.pointwise_conv = layer(inputs, outputs, 1, act_cfg=act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))
