"""Units that keep the channels of the largest filters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.errors import ModelError
from razordeploy.subnet.units.channel import Channel
from razordeploy.subnet.units.sequential import SequentialMutableChannelUnit

GROUP_REDUCTIONS = ("sum", "mean")


class L1MutableChannelUnit(SequentialMutableChannelUnit):
    """Keeps the channels whose filters have the largest L1 norm (Li et al. 2017, arXiv 1608.08710, section 3.1).

    Where several layers make the channels, as in a residual stream, their norms are added up, so that a 3x3
    convolution says more than a 1x1; ``group_reduction='mean'`` gives each layer one vote, the mean of its weights'
    magnitudes, as mmrazor does. The mask is made from the weights when the choice is set.

    Args:
        num_channels: channels of the unit.
        choice_mode: as of ``SequentialMutableChannelUnit``, and so are ``divisor``, ``min_value`` and ``min_ratio``.
        divisor: see there.
        min_value: see there.
        min_ratio: see there.
        group_reduction: ``sum`` or ``mean``.
    """

    def __init__(
        self,
        num_channels: int,
        choice_mode: str = "number",
        divisor: int = 1,
        min_value: int = 1,
        min_ratio: float = 0.9,
        group_reduction: str = "sum",
    ) -> None:
        super().__init__(num_channels, choice_mode, divisor, min_value, min_ratio)
        if group_reduction not in GROUP_REDUCTIONS:
            raise ModelError(f"expected a group_reduction of {GROUP_REDUCTIONS}, got {group_reduction!r}")
        self.group_reduction = group_reduction

    def init_args(self) -> dict[str, Any]:
        """The arguments that this unit was made with."""
        args = super().init_args()
        return args if self.group_reduction == "sum" else {**args, "group_reduction": self.group_reduction}

    @torch.no_grad()
    def importance(self) -> Tensor:
        """Score (num_channels,) of each channel, float32: the larger, the longer it stays."""
        total = torch.zeros(self.num_channels)
        for channel in self.output_related:
            norms = filter_norms(channel)
            if norms is None:
                continue
            elements = channel.elements(self.num_channels)
            owned = elements >= 0
            if self.group_reduction == "sum":
                total.index_add_(0, elements[owned], norms.sums[channel.start : channel.end][owned])
            else:
                places = torch.bincount(elements[owned], minlength=self.num_channels).clamp(min=1)
                means = norms.means[channel.start : channel.end][owned]
                total += torch.zeros(self.num_channels).index_add_(0, elements[owned], means) / places
        return total

    def _mask_of(self, number: int) -> Tensor:
        return self._best(self.importance(), number)


class FilterNorms:
    """L1 norms of the filters of one layer."""

    def __init__(self, rows: Tensor) -> None:
        magnitudes = rows.detach().abs().float().flatten(1).cpu()
        self.sums = magnitudes.sum(1)
        """(out_channels,): sum of magnitudes."""
        self.means = magnitudes.mean(1)
        """(out_channels,): mean of magnitudes."""


def filter_norms(channel: Channel) -> FilterNorms | None:
    """Norms of the filters that make ``channel``; None where no weight makes it."""
    module = channel.module
    if not channel.is_output_channel:
        return None
    if channel.tensor is not None:
        tensor = getattr(module, channel.tensor)
        return FilterNorms(tensor.movedim(channel.dim, 0)) if tensor.dim() > 1 else None
    if isinstance(module, nn.Linear):
        return FilterNorms(module.weight)
    if not isinstance(module, nn.modules.conv._ConvNd):
        return None
    weight = module.weight
    if module.transposed:
        # (in, out / groups, ...) -> (out, in / groups, ...)
        weight = weight.unflatten(0, (module.groups, -1)).transpose(1, 2).flatten(0, 1)
    return FilterNorms(weight)
