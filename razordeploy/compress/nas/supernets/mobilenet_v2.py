"""SPOS's search space over MobileNetV2, that of ProxylessNAS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from razordeploy.compress.nas.supernets.backbone import SearchableBackbone
from razordeploy.compress.nas.supernets.layers import Config, ConvModule
from razordeploy.compress.nas.supernets.shufflenet_v2 import build_choice
from razordeploy.subnet.widths import make_divisible


class SearchableMobileNetV2(SearchableBackbone):
    """Stages of choices among inverted residual blocks (ProxylessNAS, arXiv 1812.00332).

    Args:
        arch_setting: ``[channels, blocks, stride, mutable]`` for each stage.
        first_channels: of the stem.
        last_channels: of the last layer.
        widen_factor: multiplies the channels, made divisible by 8.
        out_indices: stages whose outputs are returned; the last layer is the stage after the last.
        frozen_stages: as of ``SearchableBackbone``, and so are ``norm_eval`` and ``init_cfg``.
        conv_cfg: of the stem and the last layer.
        norm_cfg: of the same.
        act_cfg: of the same.
        norm_eval: see there.
        with_cp: recompute activations in the backward pass.
        init_cfg: see there.
        in_channels: channels of the images.
        stem_stride: of the stem.
    """

    def __init__(
        self,
        arch_setting: Sequence[Sequence[Any]],
        first_channels: int = 32,
        last_channels: int = 1280,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        conv_cfg: Config = None,
        norm_cfg: Config = "BN",
        act_cfg: Config = "ReLU6",
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: Any = None,
        in_channels: int = 3,
        stem_stride: int = 2,
    ) -> None:
        stages = len(arch_setting) + 1
        super().__init__(
            stages, (stages - 1,) if out_indices is None else out_indices, frozen_stages, norm_eval, init_cfg
        )
        options: dict[str, Any] = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        channels = make_divisible(first_channels * widen_factor, 8)
        self.conv1 = ConvModule(in_channels, channels, 3, stem_stride, **options)
        self.layers = []
        for number, (width, num_blocks, stride, mutable) in enumerate(arch_setting, start=1):
            outputs = make_divisible(width * widen_factor, 8)
            blocks = []
            for index in range(num_blocks):
                place = {"in_channels": channels, "out_channels": outputs, "stride": stride if index == 0 else 1}
                blocks.append(build_choice(mutable, place, with_cp))
                channels = outputs
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            self.layers.append(f"layer{number}")
        self.out_channel = int(last_channels * widen_factor) if widen_factor > 1.0 else last_channels
        self.conv2 = ConvModule(channels, self.out_channel, 1, **options)
        self.layers.append("conv2")

    def stem_and_stages(self) -> list[nn.Module]:
        """The stem and the stages."""
        return [self.conv1, *(getattr(self, name) for name in self.layers)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) -> the feature maps of ``out_indices``."""
        x = self.conv1(x)
        found = []
        for index, name in enumerate(self.layers):
            x = getattr(self, name)(x)
            if index in self.out_indices:
                found.append(x)
        return tuple(found)
