"""Operations that record the Fisher information of their input channels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.base import DynamicChannelMixin
from razordeploy.subnet.dynamic_ops.conv import DynamicConv2d
from razordeploy.subnet.dynamic_ops.linear import DynamicLinear


class GroupFisherMixin(DynamicChannelMixin):
    """Recording for Group Fisher pruning (Liu et al. 2021, arXiv 2108.00708).

    While it records, each forward and backward pass adds an entry to ``recorded_fisher``: sum over positions of input
    times gradient, (N, C_in kept), which is the gradient of the loss by a mask on the input's channels, per sample
    (equation 4). Only this operation's share of the gradient counts, where others read the same input.
    """

    recorded_fisher: list[Tensor]
    recorded_out_shape: list[torch.Size]
    recording: bool

    dynamic_state = (*DynamicChannelMixin.dynamic_state, "recorded_fisher", "recorded_out_shape", "recording")

    def _init_dynamic(self, static_type: type[torch.nn.Module] | None = None) -> None:
        super()._init_dynamic(static_type)
        self.recording = False
        self.reset_recorded()

    def start_record(self) -> None:
        """Record from the next forward pass on."""
        self.recording = True

    def end_record(self) -> None:
        """Stop recording; what is recorded stays."""
        self.recording = False

    def reset_recorded(self) -> None:
        """Forget what is recorded."""
        self.recorded_fisher = []
        self.recorded_out_shape = []

    def _forward_sliced(self, x: Tensor) -> Tensor:
        if self.recording:
            # A view of its own, so that its gradient is this operation's share alone.
            x = x.view_as(x)
            if x.requires_grad:
                x.register_hook(self._hook(x.detach()))
        y = super()._forward_sliced(x)
        if self.recording:
            self.recorded_out_shape.append(y.shape)
        return y

    def _hook(self, x: Tensor) -> Callable[[Tensor], None]:
        def record(grad: Tensor) -> None:
            product = x * grad
            channels = product.movedim(self.in_dim, 1).flatten(2) if x.dim() > 2 else product.unsqueeze(-1)
            self.recorded_fisher.append(channels.sum(-1))

        return record

    @property
    def delta_flop_of_a_out_channel(self) -> int:
        """Multiply-adds per sample, over all recorded passes, that one output channel costs here."""
        raise NotImplementedError

    @property
    def delta_flop_of_a_in_channel(self) -> int:
        """Multiply-adds per sample, over all recorded passes, that one input channel costs here."""
        raise NotImplementedError

    @property
    def delta_memory_of_a_out_channel(self) -> int:
        """Values per sample, over all recorded passes, of one output channel."""
        return sum(self._positions(shape) for shape in self.recorded_out_shape)

    def _positions(self, shape: torch.Size) -> int:
        rest = list(shape[1:])
        rest.pop(self.out_dim if self.out_dim < 0 else self.out_dim - 1)
        return int(torch.Size(rest).numel())

    def _kept(self, attr: str) -> int:
        mask = self.mask_of(attr)
        return self.width_of(attr) if mask is None else int(mask.sum())


class GroupFisherConv2d(GroupFisherMixin, DynamicConv2d):
    """``DynamicConv2d`` that records; takes its arguments."""

    @property
    def delta_flop_of_a_out_channel(self) -> int:
        """Positions times kernel area times the input channels that one output channel reads."""
        return self._kernel_cost() * self.delta_memory_of_a_out_channel * self._fan("in_channels")

    @property
    def delta_flop_of_a_in_channel(self) -> int:
        """Positions times kernel area times the output channels that read one input channel."""
        return self._kernel_cost() * self.delta_memory_of_a_out_channel * self._fan("out_channels")

    def _kernel_cost(self) -> int:
        return int(self.kernel_size[0] * self.kernel_size[1])

    def _fan(self, attr: str) -> int:
        weight = self.get_dynamic_params()[0]
        groups = 1 if self.groups == 1 else self._current_groups(weight)
        kept = self._kept(attr)
        if kept % groups:
            raise ModelError(f"GroupFisherConv2d: {kept} channels cannot be shared by {groups} groups")
        return kept // groups


class GroupFisherLinear(GroupFisherMixin, DynamicLinear):
    """``DynamicLinear`` that records; takes its arguments."""

    @property
    def delta_flop_of_a_out_channel(self) -> int:
        """Positions times input channels."""
        return self.delta_memory_of_a_out_channel * self._kept("in_features")

    @property
    def delta_flop_of_a_in_channel(self) -> int:
        """Positions times output channels."""
        return self.delta_memory_of_a_out_channel * self._kept("out_features")
