"""Units of slimmable networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from razordeploy.subnet.dynamic_ops.switchable_batchnorm import SwitchableBatchNorm2d
from razordeploy.subnet.units.conversion import DynamicMap
from razordeploy.subnet.units.one_shot import OneShotMutableChannelUnit


class SlimmableChannelUnit(OneShotMutableChannelUnit):
    """Keeps one of a list of widths, with a batch norm for each (Yu et al. 2019, arXiv 1812.08928).

    Candidate i of every unit together make the subnet i; the list may repeat a width.

    Args:
        num_channels: channels of the unit.
        candidate_choices: as of ``OneShotMutableChannelUnit``, and so are the others.
        choice_mode: see there; here ``number`` unless given.
        divisor: see there.
        min_value: see there.
        min_ratio: see there.
    """

    dynamic_ops: ClassVar[DynamicMap] = {nn.BatchNorm2d: SwitchableBatchNorm2d}

    def __init__(
        self,
        num_channels: int,
        candidate_choices: Sequence[int | float] = (),
        choice_mode: str = "number",
        divisor: int = 1,
        min_value: int = 1,
        min_ratio: float = 0.9,
    ) -> None:
        super().__init__(num_channels, candidate_choices, choice_mode, divisor, min_value, min_ratio)

    def alter_candidates_after_init(self, candidates: Sequence[int | float]) -> None:
        """Choose from ``candidates`` from now on; mmrazor's name of ``alter_candidates``."""
        self.alter_candidates(candidates)
