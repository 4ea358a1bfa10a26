"""Channel mutators of single algorithms that need little more than their units."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.switchable_batchnorm import SwitchableBatchNorm2d
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.units.dcff import DCFFChannelUnit
from razordeploy.subnet.units.group_fisher import GroupFisherChannelUnit
from razordeploy.subnet.units.mutable_unit import MutableChannelUnit
from razordeploy.subnet.units.one_shot import OneShotMutableChannelUnit
from razordeploy.subnet.units.slimmable import SlimmableChannelUnit

_log = logging.getLogger(__name__)


class OneShotChannelMutator(ChannelMutator):
    """Units with a list of widths; takes the arguments of ``ChannelMutator``."""

    unit_type: ClassVar[type[MutableChannelUnit]] = OneShotMutableChannelUnit


class SlimmableChannelMutator(ChannelMutator):
    """Units whose candidates, taken by position, are the subnets of a slimmable network.

    Takes the arguments of ``ChannelMutator``; every unit of the config has equally many ``candidate_choices``.
    """

    unit_type: ClassVar[type[MutableChannelUnit]] = SlimmableChannelUnit
    subnets: list[dict[str, int | float]]
    """The choice of each unit, by subnet."""

    def __init__(
        self,
        channel_unit_cfg: Mapping[str, Any] | type[MutableChannelUnit] | str | None = None,
        parse_cfg: Mapping[str, Any] | None = None,
        custom_groups: Sequence[Sequence[str]] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(channel_unit_cfg, parse_cfg, custom_groups, init_cfg)
        self.subnets = []
        self._norms: list[SwitchableBatchNorm2d] = []

    def prepare_from_supernet(self, supernet: nn.Module) -> None:
        """Find the units, and make the batch norms of every subnet."""
        super().prepare_from_supernet(supernet)
        self.subnets = self._subnets()
        norms = [module for module in supernet.modules() if isinstance(module, SwitchableBatchNorm2d)]
        widths: list[list[int]] = [[] for _ in norms]
        before = self._snapshot()
        for subnet in self.subnets:
            self.set_choices(subnet)
            for found, norm in zip(widths, norms, strict=True):
                # Not by the units: after a concatenation one batch norm has the channels of several.
                found.append(norm.activated_channel_num())
        self._restore(before)
        for found, norm in zip(widths, norms, strict=True):
            norm.init_candidates(found)
        self._norms = norms

    def switch(self, index: int) -> None:
        """Run as subnet ``index``.

        Raises:
            ModelError: there are not so many.
        """
        if not 0 <= index < len(self.subnets):
            raise ModelError(f"expected a subnet from 0 to {len(self.subnets) - 1}, got {index}")
        super().set_choices(self.subnets[index])
        self._use_norms(index)

    def set_choices(self, choices: Mapping[str, Any]) -> None:
        """As of every mutator; the choices of a subnet run with its batch norms."""
        super().set_choices(choices)
        current = {unit.name: unit.mutable_channel.activated_channels for unit in self.all_units}
        for index, subnet in enumerate(self.subnets):
            if all(current[name] == self.unit(name).number_of(choice) for name, choice in subnet.items()):
                self._use_norms(index)
                return
        self._use_norms(None)

    def _use_norms(self, index: int | None) -> None:
        for norm in self._norms:
            norm.switch = index

    def _subnets(self) -> list[dict[str, int | float]]:
        configured = [unit for unit in self.all_units if unit.name in self.unit_config.entries]
        # Units that have to stay whole have the candidates of the defaults too, and no choice.
        named = [unit for unit in configured if unit.is_mutable] or self.mutable_units
        lengths = {unit.name: len(unit.candidate_choices) for unit in named}
        if len(set(lengths.values())) > 1:
            shortest, longest = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
            raise ModelError(
                f"expected equally many candidate_choices in every unit, one for each subnet: '{shortest}' has "
                f"{lengths[shortest]} and '{longest}' has {lengths[longest]}"
            )
        count = next(iter(lengths.values()), 0)
        return [{unit.name: unit.candidate_choices[i] for unit in named} for i in range(count)]


class DCFFChannelMutator(ChannelMutator):
    """Units whose filters are fused; takes the arguments of ``ChannelMutator``."""

    unit_type: ClassVar[type[MutableChannelUnit]] = DCFFChannelUnit

    def calc_information(self, tau: float) -> None:
        """Fuse the filters of every unit anew at temperature ``tau``; called once an epoch."""
        for unit in self.mutable_units:
            unit.update_fusion(tau)


class GroupFisherChannelMutator(ChannelMutator):
    """Units that lose one channel at a time; takes the arguments of ``ChannelMutator``.

    A step of Group Fisher pruning: ``start_record_info``, forward and backward, ``update_imp``,
    ``reset_recorded_info``; after some of these ``try_prune`` and ``reset_imp``.
    """

    unit_type: ClassVar[type[MutableChannelUnit]] = GroupFisherChannelUnit

    def start_record_info(self) -> None:
        """Record from the next forward pass on."""
        for unit in self.mutable_units:
            unit.start_record_fisher_info()

    def end_record_info(self) -> None:
        """Stop recording."""
        for unit in self.mutable_units:
            unit.end_record_fisher_info()

    def reset_recorded_info(self) -> None:
        """Forget what is recorded."""
        for unit in self.mutable_units:
            unit.reset_recorded()

    def update_imp(self) -> None:
        """Add the information of the recorded batch to every unit."""
        for unit in self.mutable_units:
            unit.update_fisher_info()

    def reset_imp(self) -> None:
        """Forget the information that was added up."""
        for unit in self.mutable_units:
            unit.reset_fisher_info()

    def try_prune(self) -> str | None:
        """Prune the channel of the least information in all units.

        Returns:
            Name of the unit that lost it; None where nothing was pruned: an importance is not a number, or every unit
            is down to one channel.
        """
        best: tuple[float, GroupFisherChannelUnit] | None = None
        for unit in self.mutable_units:
            if unit.mutable_channel.activated_channels > 1:
                importance: Tensor = unit.importance()
                if bool(importance.isnan().any()):
                    _log.warning("the importance of unit '%s' is not a number: nothing is pruned this time", unit.name)
                    return None
                least = float(importance.min())
                if best is None or least < best[0]:
                    best = (least, unit)
        if best is None or not best[1].try_to_prune_min_channel():
            return None
        return best[1].name
