"""Units whose width is learned as a Markov process."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from razordeploy.subnet.dynamic_ops.dmcp_batchnorm import DMCPBatchNorm2d
from razordeploy.subnet.markov import MarkovGroups, cut_groups, expected_channels
from razordeploy.subnet.units.conversion import DynamicMap
from razordeploy.subnet.units.sequential import SequentialMutableChannelUnit


class DMCPChannelUnit(SequentialMutableChannelUnit):
    """Keeps the first channels; how many is learned group by group (Guo et al. 2020, arXiv 2005.03354).

    Args:
        num_channels: channels of the unit.
        choice_mode: as of ``SequentialMutableChannelUnit``, and so are ``divisor``, ``min_value`` and ``min_ratio``.
        divisor: see there.
        min_value: see there.
        min_ratio: see there.
    """

    dynamic_ops: ClassVar[DynamicMap] = {nn.BatchNorm2d: DMCPBatchNorm2d}

    def __init__(
        self,
        num_channels: int,
        choice_mode: str = "number",
        divisor: int = 1,
        min_value: int = 1,
        min_ratio: float = 0.5,
    ) -> None:
        super().__init__(num_channels, choice_mode, divisor, min_value, min_ratio)

    def groups(self, pruning_cfg: tuple[float, float, float]) -> MarkovGroups:
        """The groups of channels that may go one after another."""
        return cut_groups(self.num_channels, pruning_cfg)

    def expected_channels(self, arch_param: Tensor, groups: MarkovGroups) -> Tensor:
        """Mean number of channels kept, differentiable in ``arch_param`` (groups,)."""
        return expected_channels(arch_param, groups)

    def weigh_channels(self, arch_param: Tensor | None, groups: MarkovGroups | None) -> None:
        """Let the unit's batch norms multiply channels by their marginal probability; None stops it.

        A norm over a concatenation, which has other units' channels as well, does not: each of its inputs has been
        through a norm of its own.
        """
        for channel in self.output_related:
            module = channel.module
            if isinstance(module, DMCPBatchNorm2d) and module.num_features == self.num_channels:
                module.set_forward_args(arch_param, groups)
