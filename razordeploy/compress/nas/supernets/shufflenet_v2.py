"""SPOS's search space over ShuffleNetV2."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from razordeploy.compress.nas.supernets.backbone import SearchableBackbone
from razordeploy.compress.nas.supernets.layers import Config, ConvModule


class SearchableShuffleNetV2(SearchableBackbone):
    """Stages of choices among ShuffleNetV2 units (SPOS, arXiv 1904.00420, section 4; DetNAS, arXiv 1903.10979).

    Args:
        arch_setting: ``[channels, blocks, mutable]`` for each stage; the first block halves the size.
        stem_multiplier: the stem has 16 times as many channels.
        widen_factor: multiplies the channels of the stages.
        out_indices: stages whose outputs are returned; the last layer is the stage after the last.
        frozen_stages: as of ``SearchableBackbone``, and so are ``norm_eval`` and ``init_cfg``.
        with_last_layer: a 1x1 convolution after the stages.
        conv_cfg: of the stem and the last layer.
        norm_cfg: of the same.
        act_cfg: of the same.
        norm_eval: see there.
        with_cp: recompute activations in the backward pass.
        init_cfg: see there.
        in_channels: channels of the images.
        stem_stride: of the stem.
        last_channels: of the last layer.
    """

    def __init__(
        self,
        arch_setting: Sequence[Sequence[Any]],
        stem_multiplier: int = 1,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (4,),
        frozen_stages: int = -1,
        with_last_layer: bool = True,
        conv_cfg: Config = None,
        norm_cfg: Config = "BN",
        act_cfg: Config = "ReLU",
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: Any = None,
        in_channels: int = 3,
        stem_stride: int = 2,
        last_channels: int = 1024,
    ) -> None:
        stages = len(arch_setting) + with_last_layer
        super().__init__(stages, out_indices, frozen_stages, norm_eval, init_cfg)
        layers: dict[str, Any] = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        channels = 16 * stem_multiplier
        self.conv1 = ConvModule(in_channels, channels, 3, stem_stride, **layers)
        self.layers = nn.ModuleList()
        for width, num_blocks, mutable in arch_setting:
            outputs = round(width * widen_factor)
            blocks = []
            for index in range(num_blocks):
                place = {"in_channels": channels, "out_channels": outputs, "stride": 2 if index == 0 else 1}
                blocks.append(build_choice(mutable, place, with_cp))
                channels = outputs
            self.layers.append(nn.Sequential(*blocks))
        if with_last_layer:
            self.layers.append(ConvModule(channels, last_channels, 1, **layers))

    def stem_and_stages(self) -> list[nn.Module]:
        """The stem and the stages."""
        return [self.conv1, *self.layers]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) -> the feature maps of ``out_indices``."""
        x = self.conv1(x)
        found = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.out_indices:
                found.append(x)
        return tuple(found)


def build_choice(mutable: Any, place: dict[str, Any], with_cp: bool = False) -> nn.Module:
    """Build the mutable of one block.

    Args:
        mutable: its config.
        place: channels and stride, for every candidate.
        with_cp: recompute activations of candidates that can.
    """
    from razordeploy.registry import build_model

    config = copy.deepcopy(dict(mutable))
    config.pop("_scope_", None)
    for key in ("candidates", "candidate_ops"):
        for candidate in config.get(key, {}).values():
            if with_cp and str(candidate.get("type")).rpartition(".")[2] != "Identity":
                candidate.setdefault("with_cp", True)
    built: nn.Module = build_model({**config, "module_kwargs": place}, "mutable")
    return built
