"""The mutator of supernets that hold their own mutables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.diff_module import DiffMutableModule
from razordeploy.subnet.mutators.base import BaseMutator
from razordeploy.subnet.mutators.groups import build_groups, source_mutables
from razordeploy.subnet.units.mutable_unit import MutableChannelUnit
from razordeploy.subnet.units.one_shot import OneShotMutableChannelUnit


class NasMutator(BaseMutator):
    """Operations, edges, values and channels of a supernet, in search groups.

    A group goes by the alias of its mutables, else by the path of the first, else by the name of the channel unit.

    Args:
        custom_groups: groups of aliases and paths whose mutables make one choice.
        init_cfg: as of every mutator.
    """

    def __init__(
        self, custom_groups: Sequence[Sequence[str]] | None = None, init_cfg: dict[str, Any] | None = None
    ) -> None:
        super().__init__(init_cfg)
        self._custom_groups = [list(group) for group in custom_groups or ()]
        self.units: list[MutableChannelUnit] = []
        self._arch_params: nn.ParameterDict | None = None
        self._keys: dict[str, str] = {}

    def prepare_from_supernet(self, supernet: nn.Module) -> None:
        """Find the mutables of ``supernet`` and give each its path as a name."""
        self.units = [
            unit for unit in OneShotMutableChannelUnit.init_from_predefined_model(supernet) if unit.is_mutable
        ]
        for unit in self.units:
            unit.current_choice = unit.max_choice
        mutables = source_mutables(supernet)
        for path, mutable in mutables.items():
            mutable.bind_mutable_name(path)
        groups: dict[str, list[Any]] = {unit.name: [unit] for unit in self.units}
        groups.update(build_groups(mutables, self._custom_groups))
        self._groups = groups

    def prepare_arch_params(self) -> None:
        """Make an architecture parameter for each group of differentiable modules, and hand it to them."""
        self._arch_params = nn.ParameterDict()
        self._keys = {}
        for name, members in self.search_groups.items():
            if isinstance(members[0], DiffMutableModule):
                # A parameter's name may have no dots.
                key = name.replace(".", "__")
                self._arch_params[key] = members[0].build_arch_param()
                self._keys[name] = key
                for member in members:
                    member.set_forward_args(self._arch_params[key])
        if not self._keys:
            raise ModelError("the supernet has no differentiable mutables, so it has no architecture parameters")

    @property
    def arch_params(self) -> nn.ParameterDict:
        """Architecture parameters by group; dots in names are two underscores.

        Raises:
            ModelError: ``prepare_arch_params()`` has not been called.
        """
        if self._arch_params is None:
            raise ModelError("the mutator has no architecture parameters yet", hint="call prepare_arch_params()")
        return self._arch_params

    def arch_param_of(self, group: str) -> nn.Parameter | None:
        """The architecture parameter of a group; None where its members are not differentiable."""
        return self.arch_params[self._keys[group]] if group in self._keys else None

    def _sample(self, name: str, members: list[Any]) -> Any:
        if self._arch_params is not None and name in self._keys:
            return members[0].sample_choice(self.arch_param_of(name))
        return members[0].sample_choice()

    @torch.no_grad()
    def fix_choices(self) -> None:
        """Sample once more and fix every group at that."""
        self.set_choices(self.sample_choices())
        for members in self.search_groups.values():
            for member in members:
                if not member.is_fixed:
                    member.fix_chosen(member.current_choice)
