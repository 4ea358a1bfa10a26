"""MobileNet's inverted residual block, elastic where its convolutions are."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from razordeploy.compress.nas.supernets.attentive_shortcut import ShortcutLayer
from razordeploy.compress.nas.supernets.layers import Config, ConvModule
from razordeploy.compress.nas.supernets.operation import ResidualOP, recomputed
from razordeploy.errors import RecipeError
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.derived import DerivedMutable
from razordeploy.subnet.widths import make_divisible


class SqueezeExcite(nn.Module):
    """Channels weighted by a function of their means (Hu et al., arXiv 1709.01507).

    Args:
        channels: of the input and output.
        ratio: the hidden layer has ``channels / ratio`` channels, made divisible by 8.
        conv_cfg: of both layers.
        act_cfg: activations after the first and the second.
    """

    def __init__(
        self,
        channels: int,
        ratio: int = 4,
        conv_cfg: Config = None,
        act_cfg: tuple[Config, Config] = ("ReLU", "HSigmoid"),
    ) -> None:
        super().__init__()
        self.ratio = ratio
        hidden = make_divisible(channels // ratio, 8)
        self.global_avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = ConvModule(channels, hidden, 1, conv_cfg=conv_cfg, act_cfg=act_cfg[0])
        self.conv2 = ConvModule(hidden, channels, 1, conv_cfg=conv_cfg, act_cfg=act_cfg[1])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * self.conv2(self.conv1(self.global_avgpool(x)))


class MBBlock(ResidualOP):
    """An inverted residual block: expand, depthwise, squeeze and excite, project (arXiv 1801.04381, 1905.02244).

    Args:
        kernel_size: of the depthwise convolution.
        expand_ratio: hidden channels by input channels.
        in_channels: as of ``ResidualOP``, like ``out_channels``, ``stride``, ``drop_path_rate`` and ``init_cfg``.
        out_channels: see there.
        stride: see there.
        se_cfg: arguments of ``SqueezeExcite``; None: there is none.
        conv_cfg: of every convolution.
        norm_cfg: of every norm.
        act_cfg: of the first two activations.
        drop_path_rate: see there.
        with_cp: recompute activations in the backward pass instead of keeping them.
        with_attentive_shortcut: a shortcut at every block, see ``ShortcutLayer``.
        init_cfg: see there.
    """

    def __init__(
        self,
        kernel_size: int,
        expand_ratio: int,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        se_cfg: dict[str, Any] | None = None,
        conv_cfg: Config = None,
        norm_cfg: Config = "BN",
        act_cfg: Config = "ReLU",
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        with_attentive_shortcut: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, not with_attentive_shortcut, drop_path_rate, init_cfg)
        layer = partial(ConvModule, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        middle = in_channels * expand_ratio
        if with_attentive_shortcut:
            self.shortcut = ShortcutLayer(in_channels, out_channels, stride, conv_cfg)
        self.with_attentive_shortcut = with_attentive_shortcut
        self.with_expand_conv, self.with_se, self.with_cp = middle != in_channels, se_cfg is not None, with_cp
        if self.with_expand_conv:
            self.expand_conv = layer(in_channels, middle, 1, act_cfg=act_cfg)
        self.depthwise_conv = layer(middle, middle, kernel_size, stride, groups=middle, act_cfg=act_cfg)
        if se_cfg is not None:
            self.se = SqueezeExcite(middle, **se_cfg)
        self.linear_conv = layer(middle, out_channels, 1, act_cfg=None)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        return recomputed(self._run, x, self.with_cp)

    def _branch(self, x: Tensor) -> Tensor:
        y = self.expand_conv(x) if self.with_expand_conv else x
        y = self.depthwise_conv(y)
        if self.with_se:
            y = self.se(y)
        out: Tensor = self.linear_conv(y)
        return out

    def _run(self, x: Tensor) -> Tensor:
        y = self._branch(x)
        if self.has_residual:
            return x + self.drop_path(y)
        if self.with_attentive_shortcut:
            shortcut = self.shortcut(x)
            # A sample that skipped the branch of a block that changes the shape would have only the shortcut left.
            return shortcut + (self.drop_path(y) if x.shape == shortcut.shape else y)
        return y

    def follow(
        self,
        inputs: BaseMutable,
        outputs: BaseMutable,
        expand_ratio: BaseMutable,
        kernel: BaseMutable,
        se_expand_ratio: BaseMutable | None = None,
    ) -> None:
        """Make the block elastic; the convolutions have to be dynamic.

        Args:
            inputs: channels of the input.
            outputs: channels of the output.
            expand_ratio: hidden channels by input channels.
            kernel: kernel size of the depthwise convolution.
            se_expand_ratio: the ratio that the squeezed channels follow; None: ``expand_ratio``.
        """
        if self.has_residual and inputs is not outputs and len({*inputs.choices, *outputs.choices}) > 1:
            raise RecipeError(
                f"MBBlock: a shortcut cannot add {inputs.choices} channels to {outputs.choices}",
                hint="with_attentive_shortcut=True",
            )
        ratio: Any = expand_ratio
        middle: DerivedMutable = inputs * ratio
        self.derived_expand_channels = middle
        if self.with_expand_conv:
            self.expand_conv.follow(inputs, middle)
        self.depthwise_conv.follow(middle, middle, kernel)
        if self.with_se:
            wide = middle if se_expand_ratio is None else inputs * se_expand_ratio  # type: ignore[operator]
            hidden = wide.derive_divide_mutable(self.se.ratio, 8)
            self.derived_se_channels = hidden
            self.se.conv1.follow(middle, hidden)
            self.se.conv2.follow(hidden, middle)
        self.linear_conv.follow(middle, outputs)
        if self.with_attentive_shortcut:
            self.shortcut.follow(inputs, outputs)
