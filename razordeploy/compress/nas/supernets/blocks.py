"""The operations that one-shot search spaces choose from."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.nas.supernets.layers import (
    Config,
    ConvModule,
    DropPath,
    build_conv,
    channel_shuffle,
    follow,
)
from razordeploy.errors import RecipeError
from razordeploy.subnet.dynamic_ops.base import DynamicChannelMixin, DynamicMixin
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.derived import DerivedMutable
from razordeploy.subnet.selection import put, take
from razordeploy.subnet.widths import make_divisible


class BaseOP(nn.Module):
    """An operation at its place in a network.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: 1 or 2.
        init_cfg: taken for mmengine's sake.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, init_cfg: Any = None) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise RecipeError(f"{type(self).__name__}: expected stride 1 or 2, got {stride}")
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride


class Identity(BaseOP):
    """Nothing; where the shape changes, a 1x1 convolution and a norm. Takes the arguments of ``BaseOP``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        conv_cfg: Config = None,
        norm_cfg: Config = "BN",
        act_cfg: Config = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, init_cfg)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = ConvModule(
                in_channels, out_channels, 1, stride, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        return x if self.downsample is None else self.downsample(x)


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


class ShortcutLayer(DynamicChannelMixin):
    """AttentiveNAS's shortcut (Wang et al., arXiv 2011.09011): pooled to the stride, and a 1x1 convolution where the
    channels differ, which they do for some subnets only.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        reduction: 1 or 2, the factor of the pooling.
        conv_cfg: of the convolution.
    """

    accepted_mutable_attrs: ClassVar[frozenset[str]] = frozenset({"in_channels", "out_channels"})

    def __init__(self, in_channels: int, out_channels: int, reduction: int = 1, conv_cfg: Config = None) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.reduction = in_channels, out_channels, reduction
        self.conv = build_conv(conv_cfg, in_channels, out_channels, 1, bias=False)

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """``StaticShortcut``."""
        return StaticShortcut

    @property
    def changes_channels(self) -> bool:
        """Whether the convolution runs at the current choice."""
        inputs, outputs = (int(self.channel_mask(side).sum()) for side in ("in_channels", "out_channels"))
        return inputs != outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / reduction, W / reduction)."""
        if self.reduction > 1:
            x = _pooled(x, self.reduction)
        if self.changes_channels:
            y: Tensor = self.conv(x)
            return y
        # As many channels are kept of both, but masked the widths around may differ.
        return put(take(x, self._masks()[0], 1), self._masks()[1], 1) if self.masked else x

    def follow(self, inputs: BaseMutable, outputs: BaseMutable) -> None:
        """Let the channels follow mutables."""
        follow(self, inputs, outputs)
        follow(self.conv, inputs, outputs)

    def _slice_into(self, static: Any) -> None:
        conv: Any = static._modules.pop("conv")
        static.conv = None
        if self.changes_channels:
            if isinstance(conv, DynamicMixin):
                dynamic, conv = conv, conv._bare()
                dynamic._slice_into(conv)
            static.conv = conv
        static.in_channels, static.out_channels = (
            int(self.channel_mask(side).sum()) for side in ("in_channels", "out_channels")
        )


class StaticShortcut(nn.Module):
    """What a ``ShortcutLayer`` is once it is sliced: pooling, and a convolution or None."""

    reduction: int
    conv: nn.Module | None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / reduction, W / reduction)."""
        if self.reduction > 1:
            x = _pooled(x, self.reduction)
        return x if self.conv is None else self.conv(x)


def _pooled(x: Tensor, reduction: int) -> Tensor:
    return functional.avg_pool2d(x, reduction, padding=x.size(-1) & 1)


class MBBlock(BaseOP):
    """An inverted residual block: expand, depthwise, squeeze and excite, project (arXiv 1801.04381, 1905.02244).

    Args:
        kernel_size: of the depthwise convolution.
        expand_ratio: hidden channels by input channels.
        in_channels: as of ``BaseOP``, like ``out_channels``, ``stride`` and ``init_cfg``.
        out_channels: see there.
        stride: see there.
        se_cfg: arguments of ``SqueezeExcite``; None: there is none.
        conv_cfg: of every convolution.
        norm_cfg: of every norm.
        act_cfg: of the first two activations.
        drop_path_rate: stochastic depth of the residual branch.
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
        super().__init__(in_channels, out_channels, stride, init_cfg)
        layers: dict[str, Any] = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg}
        middle = in_channels * expand_ratio
        if with_attentive_shortcut:
            self.shortcut = ShortcutLayer(in_channels, out_channels, stride, conv_cfg)
        self.with_attentive_shortcut = with_attentive_shortcut
        self.with_res_shortcut = not with_attentive_shortcut and stride == 1 and in_channels == out_channels
        self.with_expand_conv, self.with_se, self.with_cp = middle != in_channels, se_cfg is not None, with_cp
        if self.with_expand_conv:
            self.expand_conv = ConvModule(in_channels, middle, 1, act_cfg=act_cfg, **layers)
        self.depthwise_conv = ConvModule(middle, middle, kernel_size, stride, groups=middle, act_cfg=act_cfg, **layers)
        if se_cfg is not None:
            self.se = SqueezeExcite(middle, **se_cfg)
        self.linear_conv = ConvModule(middle, out_channels, 1, act_cfg=None, **layers)
        self.drop_path = DropPath(drop_path_rate)

    @property
    def drop_path_rate(self) -> float:
        """Probability with which a sample skips the residual branch."""
        return self.drop_path.drop_prob

    @drop_path_rate.setter
    def drop_path_rate(self, value: float) -> None:
        self.drop_path.drop_prob = float(value)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        if self.with_cp and x.requires_grad:
            from torch.utils.checkpoint import checkpoint

            out: Tensor = checkpoint(self._run, x, use_reentrant=False)
            return out
        return self._run(x)

    def _run(self, x: Tensor) -> Tensor:
        y = self.expand_conv(x) if self.with_expand_conv else x
        y = self.depthwise_conv(y)
        if self.with_se:
            y = self.se(y)
        y = self.linear_conv(y)
        if self.with_res_shortcut:
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
        if self.with_res_shortcut and inputs is not outputs and len({*inputs.choices, *outputs.choices}) > 1:
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


class ShuffleBlock(BaseOP):
    """A ShuffleNetV2 unit of elastic kernel size (arXiv 1807.11164, as SPOS searches it, arXiv 1904.00420).

    Args:
        kernel_size: of the depthwise convolution.
        in_channels: as of ``BaseOP``, like ``out_channels``, ``stride`` and ``init_cfg``.
        out_channels: see there.
        stride: see there.
        conv_cfg: of every convolution.
        norm_cfg: of every norm.
        act_cfg: of every activation.
        with_cp: recompute activations in the backward pass instead of keeping them.
        init_cfg: see there.
    """

    def __init__(
        self,
        kernel_size: int,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        conv_cfg: Config = None,
        norm_cfg: Config = "BN",
        act_cfg: Config = "ReLU",
        with_cp: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, init_cfg)
        half = _half(self)
        layers: dict[str, Any] = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg}
        if stride > 1:
            self.branch1 = _shortcut(in_channels, half, kernel_size, stride, act_cfg, layers)
        self.branch2 = nn.Sequential(
            ConvModule(in_channels if stride > 1 else half, half, 1, act_cfg=act_cfg, **layers),
            ConvModule(half, half, kernel_size, stride, groups=half, act_cfg=None, **layers),
            ConvModule(half, half, 1, act_cfg=act_cfg, **layers),
        )
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        return _shuffled(self, x)


class ShuffleXception(BaseOP):
    """A ShuffleNetV2 unit with three depthwise separable convolutions; takes the arguments of ``ShuffleBlock`` but
    ``kernel_size``.
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
    ) -> None:
        super().__init__(in_channels, out_channels, stride, init_cfg)
        half = _half(self)
        layers: dict[str, Any] = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg}
        if stride > 1:
            self.branch1 = _shortcut(in_channels, half, 3, stride, act_cfg, layers)
        first = in_channels if stride > 1 else half
        self.branch2 = nn.Sequential(
            *(
                _Separable(channels, half, stride if index == 0 else 1, act_cfg, layers)
                for index, channels in enumerate((first, half, half))
            )
        )
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        return _shuffled(self, x)


class _Separable(nn.Module):
    """3x3 depthwise and 1x1, an activation after the second."""

    def __init__(self, inputs: int, outputs: int, stride: int, act_cfg: Config, layers: dict[str, Any]) -> None:
        super().__init__()
        self.depthwise_conv = ConvModule(inputs, inputs, 3, stride, groups=inputs, act_cfg=None, **layers)
        self.pointwise_conv = ConvModule(inputs, outputs, 1, act_cfg=act_cfg, **layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


def _shortcut(
    inputs: int, outputs: int, kernel_size: int, stride: int, act_cfg: Config, layers: dict[str, Any]
) -> nn.Sequential:
    return nn.Sequential(
        ConvModule(inputs, inputs, kernel_size, stride, groups=inputs, act_cfg=None, **layers),
        ConvModule(inputs, outputs, 1, act_cfg=act_cfg, **layers),
    )


def _half(block: BaseOP) -> int:
    half = block.out_channels // 2
    if block.out_channels % 2 or (block.stride == 1 and block.in_channels != 2 * half):
        raise RecipeError(
            f"{type(block).__name__}: expected an even number of output channels, and at stride 1 as many inputs, got "
            f"{block.in_channels} -> {block.out_channels} at stride {block.stride}"
        )
    return half


def _shuffled(block: Any, x: Tensor) -> Tensor:
    def run(x: Tensor) -> Tensor:
        if block.stride > 1:
            parts = (block.branch1(x), block.branch2(x))
        else:
            kept, used = x.chunk(2, dim=1)
            parts = (kept, block.branch2(used))
        return channel_shuffle(torch.cat(parts, dim=1), 2)

    if block.with_cp and x.requires_grad:
        from torch.utils.checkpoint import checkpoint

        out: Tensor = checkpoint(run, x, use_reentrant=False)
        return out
    return run(x)


class ConvBnAct(BaseOP):
    """Convolution, norm, activation and perhaps a shortcut, as EfficientNet's spaces have it.

    Args:
        in_channels: as of ``BaseOP``, like ``out_channels``, ``stride`` and ``init_cfg``.
        out_channels: see there.
        kernel_size: of the convolution.
        stride: see there.
        dw_conv_cfg: of the convolution.
        norm_cfg: of the norm.
        act_cfg: of the activation.
        drop_path_rate: stochastic depth, with a shortcut.
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
        super().__init__(in_channels, out_channels, stride, init_cfg)
        self.has_residual = has_skip and stride == 1 and in_channels == out_channels
        self.convModule = ConvModule(
            in_channels, out_channels, kernel_size, stride, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg
        )
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y = self.convModule(x)
        return x + self.drop_path(y) if self.has_residual else y


class DepthwiseSeparableConv(BaseOP):
    """Depthwise convolution, squeeze and excite, 1x1 convolution and perhaps a shortcut.

    Args:
        in_channels: as of ``BaseOP``, like ``out_channels``, ``stride`` and ``init_cfg``.
        out_channels: see there.
        kernel_size: of the depthwise convolution.
        stride: see there.
        se_cfg: arguments of ``SqueezeExcite``; None: there is none.
        conv_cfg: of both convolutions.
        norm_cfg: of both norms.
        act_cfg: of the first activation.
        pw_act_cfg: of the second; None: there is none.
        drop_path_rate: stochastic depth, with a shortcut.
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
        super().__init__(in_channels, out_channels, stride, init_cfg)
        layers: dict[str, Any] = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg}
        self.has_residual = not noskip and stride == 1 and in_channels == out_channels
        self.conv_dw = ConvModule(
            in_channels, in_channels, kernel_size, stride, groups=in_channels, act_cfg=act_cfg, **layers
        )
        self.se = nn.Identity() if se_cfg is None else SqueezeExcite(in_channels, **se_cfg)
        self.conv_pw = ConvModule(in_channels, out_channels, 1, act_cfg=pw_act_cfg, **layers)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y = self.conv_pw(self.se(self.conv_dw(x)))
        return x + self.drop_path(y) if self.has_residual else y


OPERATIONS: dict[str, type[nn.Module]] = {
    "ConvBnAct": ConvBnAct,
    "DepthwiseSeparableConv": DepthwiseSeparableConv,
    "Identity": Identity,
    "MBBlock": MBBlock,
    "ShuffleBlock": ShuffleBlock,
    "ShuffleXception": ShuffleXception,
}
"""The operations that a config may name as candidates."""
