"""Blocks of EfficientNet's spaces besides the inverted residual one."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from razordeploy.compress.nas.supernets.layers import Config, ConvModule
from razordeploy.compress.nas.supernets.mobilenet_blocks import SqueezeExcite
from razordeploy.compress.nas.supernets.operation import ResidualOP


class ConvBnAct(ResidualOP):
    """Convolution, norm, activation and perhaps a shortcut.

    Args:
        in_channels: as of ``ResidualOP``, like ``out_channels``, ``stride``, ``drop_path_rate`` and ``init_cfg``.
        out_channels: see there.
        kernel_size: of the convolution.
        stride: see there.
        conv_cfg: of the convolution.
        norm_cfg: of the norm.
        act_cfg: of the activation.
        drop_path_rate: see there.
        has_skip: a shortcut where the shape allows one.
        init_cfg: see there.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        conv_cfg: Config = None,
        norm_cfg: Config = "BN",
        act_cfg: Config = "ReLU",
        drop_path_rate: float = 0.0,
        has_skip: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, has_skip, drop_path_rate, init_cfg)
        self.convModule = ConvModule(
            in_channels, out_channels, kernel_size, stride, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg
        )

    def _branch(self, x: Tensor) -> Tensor:
        out: Tensor = self.convModule(x)
        return out


class DepthwiseSeparableConv(ResidualOP):
    """Depthwise convolution, squeeze and excite, 1x1 convolution and perhaps a shortcut.

    Args:
        in_channels: as of ``ResidualOP``, like ``out_channels``, ``stride``, ``drop_path_rate`` and ``init_cfg``.
        out_channels: see there.
        kernel_size: of the depthwise convolution.
        stride: see there.
        se_cfg: arguments of ``SqueezeExcite``; None: there is none.
        conv_cfg: of both convolutions.
        norm_cfg: of both norms.
        act_cfg: of the first activation.
        pw_act_cfg: of the second; None: there is none.
        drop_path_rate: see there.
        noskip: no shortcut, even where the shape allows one.
        init_cfg: see there.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        se_cfg: dict[str, Any] | None = None,
        conv_cfg: Config = None,
        norm_cfg: Config = "BN",
        act_cfg: Config = "ReLU",
        pw_act_cfg: Config = None,
        drop_path_rate: float = 0.0,
        noskip: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, not noskip, drop_path_rate, init_cfg)
        layer = partial(ConvModule, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        self.conv_dw = layer(in_channels, in_channels, kernel_size, stride, groups=in_channels, act_cfg=act_cfg)
        self.se = nn.Identity() if se_cfg is None else SqueezeExcite(in_channels, **se_cfg)
        self.conv_pw = layer(in_channels, out_channels, 1, act_cfg=pw_act_cfg)

    def _branch(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_pw(self.se(self.conv_dw(x)))
        return out
