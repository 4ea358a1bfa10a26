"""Zeros in the place of what is removed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.units.channel import Channel
from razordeploy.subnet.units.l1 import L1MutableChannelUnit


@torch.no_grad()
def clear_removed(mutator: ChannelMutator, *, every: bool = False) -> None:
    """Set the weights that make removed channels to zero, where a unit ranks channels by their weights.

    Nothing else keeps a channel that once went from coming back: its weights stay as they were while those of the
    others change. Whoever prunes a full-width checkpoint again finds the same channels.

    Args:
        mutator: its model is changed in place.
        every: of all units, so that a network without layer norms computes at full width what it does sliced.
    """
    for unit in mutator.all_units:
        mask = unit.mask.cpu()
        if (every or isinstance(unit, L1MutableChannelUnit)) and not bool(mask.all()):
            for channel in unit.output_related:
                _clear(channel, unit.num_channels, mask)


def _clear(channel: Channel, num_channels: int, mask: Tensor) -> None:
    elements = channel.elements(num_channels)
    gone = torch.nonzero((elements >= 0) & ~mask[elements.clamp(min=0)]).flatten() + channel.start
    module = channel.module
    if channel.tensor is not None:
        getattr(module, channel.tensor).index_fill_(channel.dim or 0, gone, 0.0)
        return
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if weight is None:
        return
    if isinstance(module, nn.modules.conv._ConvNd) and module.transposed:
        # (in, out / groups, ...): the outputs of group g follow one another.
        own = module.out_channels // module.groups
        rows = module.in_channels // module.groups
        for place in gone.tolist():
            group = place // own
            weight[group * rows : (group + 1) * rows, place % own] = 0.0
    else:
        weight.index_fill_(0, gone.to(weight.device), 0.0)
    if bias is not None:
        bias.index_fill_(0, gone.to(bias.device), 0.0)
