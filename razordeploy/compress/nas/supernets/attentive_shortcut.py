"""The shortcut of AttentiveNAS's blocks."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.nas.supernets.layers import Config, build_conv, follow
from razordeploy.subnet.dynamic_ops.base import DynamicChannelMixin, DynamicMixin
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.selection import put, take


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
