"""Units of dynamic-coded filter fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from razordeploy.subnet.dynamic_ops.fuse_conv import FuseConv2d
from razordeploy.subnet.units.conversion import DynamicMap
from razordeploy.subnet.units.sequential import SequentialMutableChannelUnit


class DCFFChannelUnit(SequentialMutableChannelUnit):
    """Keeps a share of the filters, each fused from all (Lin et al. 2021, arXiv 2107.06916).

    Args:
        num_channels: channels of the unit.
        candidate_choices: taken for mmrazor's sake; its configs write one choice, which ``choice`` says as well.
        choice_mode: as of ``SequentialMutableChannelUnit``, and so are ``divisor``, ``min_value`` and ``min_ratio``.
        divisor: see there.
        min_value: see there.
        min_ratio: see there.
    """

    dynamic_ops: ClassVar[DynamicMap] = {nn.Conv2d: FuseConv2d}

    def __init__(
        self,
        num_channels: int,
        candidate_choices: Sequence[int | float] | None = None,
        choice_mode: str = "ratio",
        divisor: int = 1,
        min_value: int = 1,
        min_ratio: float = 0.9,
    ) -> None:
        super().__init__(num_channels, choice_mode, divisor, min_value, min_ratio)
        if candidate_choices:
            self.current_choice = candidate_choices[0]

    def update_fusion(self, tau: float) -> None:
        """Fuse the filters of every convolution of the unit at temperature ``tau``."""
        for module in self.fused_convs:
            whole = bool(self.mask.all())
            module.set_forward_args(None if whole else module.get_pooled_channel(tau))

    @property
    def fused_convs(self) -> list[FuseConv2d]:
        """The convolutions that make the unit's channels."""
        modules = [channel.module for channel in self.output_related]
        return [module for module in dict.fromkeys(modules) if isinstance(module, FuseConv2d)]

    @torch.no_grad()
    def reset_fusion(self) -> None:
        """Slice again instead of fusing."""
        for module in self.fused_convs:
            module.set_forward_args(None)
