"""Units that lose the channel of the least Fisher information."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.group_fisher import GroupFisherConv2d, GroupFisherLinear, GroupFisherMixin
from razordeploy.subnet.units.channel import Channel
from razordeploy.subnet.units.conversion import DynamicMap
from razordeploy.subnet.units.l1 import L1MutableChannelUnit

NORMALIZATIONS = ("flops", "act", "none")


class GroupFisherChannelUnit(L1MutableChannelUnit):
    """Prunes one channel at a time by its Fisher information (Liu et al. 2021, arXiv 2108.00708).

    The information of a channel is the sum over samples of the squared gradient of the loss by a mask on it, over all
    layers that read it together (equations 3 and 6), divided by what the channel costs.

    Args:
        num_channels: channels of the unit.
        normalization_type: divide by the multiply-adds of a channel in 1e9 (``flops``), by the values that it stores
            in 1e6 (``act``), or by nothing (``none``).
        mutate_linear: also prune channels that a linear layer reads.
    """

    normalized_fisher_info: Tensor
    dynamic_ops: ClassVar[DynamicMap] = {nn.Conv2d: GroupFisherConv2d, nn.Linear: GroupFisherLinear}

    def __init__(
        self,
        num_channels: int,
        normalization_type: str = "flops",
        mutate_linear: bool = False,
        choice_mode: str = "number",
        divisor: int = 1,
        min_value: int = 1,
        min_ratio: float = 0.9,
    ) -> None:
        super().__init__(num_channels, choice_mode, divisor, min_value, min_ratio)
        if normalization_type not in NORMALIZATIONS:
            raise ModelError(f"expected a normalization_type of {NORMALIZATIONS}, got {normalization_type!r}")
        self.delta_type = normalization_type
        self.mutate_linear = mutate_linear
        self.register_buffer("normalized_fisher_info", torch.zeros(num_channels, dtype=torch.float64))

    def init_args(self) -> dict[str, Any]:
        """The arguments that this unit was made with."""
        return {
            **super().init_args(),
            "normalization_type": self.delta_type,
            "mutate_linear": self.mutate_linear,
        }

    @property
    def is_mutable(self) -> bool:
        """As of every unit; without ``mutate_linear`` no linear layer may read the channels."""
        linear = any(isinstance(channel.module, nn.Linear) for channel in self.input_related)
        return super().is_mutable and bool(list(self.readers)) and (self.mutate_linear or not linear)

    @property
    def readers(self) -> Iterator[tuple[Channel, GroupFisherMixin]]:
        """Layers that read the channels and record."""
        for channel in self.input_related:
            if isinstance(channel.module, GroupFisherMixin):
                yield channel, channel.module

    @property
    def makers(self) -> Iterator[tuple[Channel, GroupFisherMixin]]:
        """Layers that make the channels and record."""
        for channel in self.output_related:
            if isinstance(channel.module, GroupFisherMixin):
                yield channel, channel.module

    def start_record_fisher_info(self) -> None:
        """Record from the next forward pass on."""
        for _, module in [*self.readers, *self.makers]:
            module.start_record()

    def end_record_fisher_info(self) -> None:
        """Stop recording."""
        for _, module in [*self.readers, *self.makers]:
            module.end_record()

    def reset_recorded(self) -> None:
        """Forget what is recorded."""
        for _, module in [*self.readers, *self.makers]:
            module.reset_recorded()

    @property
    def current_batch_fisher(self) -> Tensor:
        """Information (num_channels,) of the recorded batch, on this process: summed over layers, squared, summed
        over samples.
        """
        total: Tensor | None = None
        for channel, module in self.readers:
            share = self._fisher_of(channel, module)
            total = share if total is None else total + share
        if total is None:
            raise ModelError(f"unit '{self.name}' has no layer that records Fisher information")
        return total.square().sum(0)

    def _fisher_of(self, channel: Channel, module: GroupFisherMixin) -> Tensor:
        """Gradient by the mask (N, num_channels) of one layer, zero for channels that are gone."""
        if not module.recorded_fisher:
            raise ModelError(
                f"unit '{self.name}': '{channel.name}' has recorded nothing",
                hint="call start_record_info() before the forward and backward pass",
            )
        recorded = torch.stack(module.recorded_fisher).sum(0).double()
        mask = module.mask_of("in_channels")
        width = module.width_of("in_channels")
        if recorded.size(1) != width:
            kept = torch.nonzero(mask).flatten() if mask is not None else torch.arange(width)
            recorded = recorded.new_zeros(len(recorded), width).index_copy(1, kept.to(recorded.device), recorded)
        elements = channel.elements(self.num_channels).to(recorded.device)
        owned = elements >= 0
        part = recorded[:, channel.start : channel.end][:, owned]
        return part.new_zeros(len(part), self.num_channels).index_add(1, elements[owned], part)

    @torch.no_grad()
    def update_fisher_info(self) -> None:
        """Add the information of the recorded batch, of all processes together."""
        batch = self.current_batch_fisher
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(batch)
        self.normalized_fisher_info += (batch / self._cost()).to(self.normalized_fisher_info)

    def reset_fisher_info(self) -> None:
        """Forget the information that was added up."""
        self.normalized_fisher_info.zero_()

    def importance(self) -> Tensor:
        """Information (num_channels,) added up so far; infinite for channels that are gone."""
        info = self.normalized_fisher_info
        return info.masked_fill(~self.mask.to(info.device), float("inf"))

    def try_to_prune_min_channel(self) -> bool:
        """Prune the channel of the least information; False where only one is left."""
        if self.mutable_channel.activated_channels <= 1:
            return False
        mask = self.mask.clone()
        mask[self.importance().argmin()] = False
        self.mutable_channel.current_choice = mask
        return True

    @property
    def delta_flop_of_a_channel(self) -> int:
        """Multiply-adds per sample that one channel costs in all layers of the unit."""
        made = {id(module) for _, module in self.makers}
        cost = sum(module.delta_flop_of_a_out_channel * self._times(channel) for channel, module in self.makers)
        for channel, module in self.readers:
            # A depthwise convolution makes and reads the channel at once: it goes once.
            if not (id(module) in made and getattr(module, "groups", 1) > 1):
                cost += module.delta_flop_of_a_in_channel * self._times(channel)
        return cost

    @property
    def delta_memory_of_a_channel(self) -> int:
        """Values per sample that one channel stores in all layers that make it."""
        return sum(module.delta_memory_of_a_out_channel * self._times(channel) for channel, module in self.makers)

    def _times(self, channel: Channel) -> int:
        """How often the layer has each channel."""
        return int((channel.elements(self.num_channels) == 0).sum())

    def _cost(self) -> float:
        if self.delta_type == "none":
            return 1.0
        cost = (
            self.delta_flop_of_a_channel / 1e9 if self.delta_type == "flops" else self.delta_memory_of_a_channel / 1e6
        )
        if not cost > 0:
            raise ModelError(f"unit '{self.name}': a channel costs nothing, so its information has no measure")
        return cost

    def _mask_of(self, number: int) -> Tensor:
        if bool(self.normalized_fisher_info.any()):
            scores = self.normalized_fisher_info.cpu()
            return self._best(scores.masked_fill(~self.mask.cpu(), -1.0), number)
        return super()._best(L1MutableChannelUnit.importance(self), number)

    def sample_choice(self) -> Any:
        """A random number of channels."""
        return self._choice_of(random.randint(1, self.num_channels))
