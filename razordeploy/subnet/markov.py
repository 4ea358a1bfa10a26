"""The Markov process over groups of channels that DMCP learns (Guo et al. 2020, arXiv 2005.03354)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from razordeploy.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class MarkovGroups:
    """How the channels of one unit are cut into groups that are kept or not one after another."""

    group_size: int
    """Channels of a group."""
    num_groups: int
    """Groups that may go."""
    min_channels: int
    """Channels before them, always kept."""

    @property
    def num_channels(self) -> int:
        """Full width."""
        return self.min_channels + self.group_size * self.num_groups


def cut_groups(num_channels: int, pruning_cfg: tuple[float, float, float] = (0.1, 1.0, 0.05)) -> MarkovGroups:
    """Cut ``num_channels`` into groups.

    Args:
        num_channels: full width of the unit.
        pruning_cfg: (least rate kept, largest rate kept, rate of one group), as in the paper's section 4.1.

    Raises:
        ModelError: rates out of order, or groups that leave no channel to keep.
    """
    low, high, step = pruning_cfg
    if not 0 < low <= high <= 1 or not step > 0:
        raise ModelError(
            f"expected pruning_cfg (min, max, step) with 0 < min <= max <= 1 and step > 0, got {pruning_cfg}"
        )
    size = int(step * num_channels / high + 1e-6)
    count = int((high - low) / step + 1e-4) if size else 0
    rest = num_channels - size * count
    if rest < 1:
        raise ModelError(f"pruning_cfg {pruning_cfg} leaves no channel of {num_channels} that is always kept")
    return MarkovGroups(group_size=size, num_groups=count, min_channels=rest)


def transition_probabilities(arch_param: Tensor) -> Tensor:
    """Probability (groups,) that group k is kept if group k - 1 is: exp(-max(alpha, 0)), equation 6."""
    return torch.exp(-arch_param.clamp(min=0))


def marginal_probabilities(arch_param: Tensor) -> Tensor:
    """Probability (groups,) that group k is kept: the product of the transitions up to it, equation 4."""
    return transition_probabilities(arch_param).cumprod(0)


def expected_channels(arch_param: Tensor, groups: MarkovGroups) -> Tensor:
    """Mean number of channels kept, differentiable in ``arch_param``, equation 8."""
    return groups.min_channels + groups.group_size * marginal_probabilities(arch_param).sum()


def sample_channels(arch_param: Tensor, groups: MarkovGroups) -> int:
    """A number of channels drawn from the process: groups are added until the first that is not kept."""
    stays = torch.rand(groups.num_groups) < transition_probabilities(arch_param.detach()).cpu()
    return groups.min_channels + groups.group_size * int(stays.long().cumprod(0).sum())
