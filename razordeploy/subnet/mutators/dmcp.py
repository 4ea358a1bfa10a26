"""The mutator of differentiable Markov channel pruning."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from razordeploy.errors import ModelError
from razordeploy.subnet.agree import agree
from razordeploy.subnet.markov import MarkovGroups, expected_channels, sample_channels
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.units.dmcp import DMCPChannelUnit
from razordeploy.subnet.units.mutable_unit import MutableChannelUnit

MODES = ("max", "min", "random", "direct", "expected")


class DMCPChannelMutator(ChannelMutator):
    """Units whose widths are learned as Markov processes (Guo et al. 2020, arXiv 2005.03354).

    Args:
        channel_unit_cfg: as of ``ChannelMutator``.
        parse_cfg: as of ``ChannelMutator``.
        pruning_cfg: (least rate kept, largest rate kept, rate of one group).
        custom_groups: as of ``ChannelMutator``.
        init_cfg: as of every mutator.
    """

    unit_type: ClassVar[type[MutableChannelUnit]] = DMCPChannelUnit

    def __init__(
        self,
        channel_unit_cfg: Mapping[str, Any] | type[MutableChannelUnit] | str | None = None,
        parse_cfg: Mapping[str, Any] | None = None,
        pruning_cfg: Sequence[float] = (0.1, 1, 0.05),
        custom_groups: Sequence[Sequence[str]] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(channel_unit_cfg, parse_cfg, custom_groups, init_cfg)
        low, high, step = pruning_cfg
        self.pruning_cfg = (float(low), float(high), float(step))
        self.arch_params = nn.ParameterDict()
        self.markov: dict[str, MarkovGroups] = {}
        """Groups of channels, by search group."""

    def prepare_from_supernet(self, supernet: nn.Module) -> None:
        """Find the units, and make an architecture parameter (groups,) for each search group, all zeros: a unit
        begins with every group kept for sure.
        """
        super().prepare_from_supernet(supernet)
        for index, (name, members) in enumerate(self.search_groups.items()):
            groups = members[0].groups(self.pruning_cfg)
            if len(members[0].segments) > 1:
                raise ModelError(f"unit '{name}': shuffled channels have no first ones, so DMCP cannot order them")
            self.markov[name] = groups
            where = members[0].mask.device
            self.arch_params[str(index)] = nn.Parameter(torch.zeros(groups.num_groups, device=where))

    def arch_param_of(self, group: str) -> nn.Parameter:
        """The architecture parameter of a search group."""
        return self.arch_params[str(list(self.search_groups).index(group))]

    def modify_supernet_forward(self, arch_train: bool) -> None:
        """Weigh channels by the probability that they are kept, as training architecture parameters needs; or stop."""
        for name, members in self.search_groups.items():
            for unit in members:
                if arch_train:
                    unit.weigh_channels(self.arch_param_of(name), self.markov[name])
                else:
                    unit.weigh_channels(None, None)

    def sample_subnet(self, mode: str, arch_train: bool = False) -> dict[str, int]:
        """Set the widths of ``mode`` and return them; drawn on rank 0 for all ranks.

        Args:
            mode: ``max``, ``min``, ``random`` (each number of groups alike), ``direct`` (drawn from the process), or
                ``expected`` (its mean, rounded).
            arch_train: weigh channels by the probability that they are kept.
        """
        if mode not in MODES:
            raise ModelError(f"expected a mode of {MODES}, got {mode!r}")
        choices = agree(lambda: {name: self._channels(mode, name) for name in self.search_groups})
        self.set_choices(choices)
        self.modify_supernet_forward(arch_train)
        return choices

    def expected_channels(self) -> dict[str, Tensor]:
        """Mean number of channels kept by search group, differentiable in the architecture parameters."""
        return {name: expected_channels(self.arch_param_of(name), self.markov[name]) for name in self.search_groups}

    def _channels(self, mode: str, name: str) -> int:
        groups = self.markov[name]
        if mode == "max":
            return groups.num_channels
        if mode == "min":
            return groups.min_channels
        if mode == "random":
            return groups.min_channels + groups.group_size * random.randint(0, groups.num_groups)
        if mode == "direct":
            return sample_channels(self.arch_param_of(name), groups)
        return round(float(expected_channels(self.arch_param_of(name).detach(), groups)))

    def config_template(
        self, only_mutable_units: bool = False, with_unit_init_args: bool = False, with_channels: bool = False
    ) -> dict[str, Any]:
        """As of ``ChannelMutator``, with ``pruning_cfg``."""
        template = super().config_template(only_mutable_units, with_unit_init_args, with_channels)
        return {**template, "pruning_cfg": list(self.pruning_cfg)}
