"""Mutators of one kind of mutable modules."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.diff_module import DiffMutableModule
from razordeploy.subnet.mutables.one_shot_module import OneShotMutableModule
from razordeploy.subnet.mutables.value import MutableValue
from razordeploy.subnet.mutators.groups import build_groups, source_mutables
from razordeploy.subnet.mutators.nas import NasMutator


class _KindMutator(NasMutator):
    """A ``NasMutator`` that sees mutables of one kind only; takes its arguments."""

    kind: ClassVar[type[BaseMutable]]

    def prepare_from_supernet(self, supernet: nn.Module) -> None:
        """Find the mutables of this kind in ``supernet``."""
        found = {path: mutable for path, mutable in source_mutables(supernet).items() if isinstance(mutable, self.kind)}
        for path, mutable in found.items():
            mutable.bind_mutable_name(path)
        groups: dict[str, list[Any]] = build_groups(found, self._custom_groups)
        self._groups = groups


class OneShotModuleMutator(_KindMutator):
    """Search groups of one-shot modules; takes the arguments of ``NasMutator``."""

    kind: ClassVar[type[BaseMutable]] = OneShotMutableModule


class DiffModuleMutator(_KindMutator):
    """Search groups of differentiable modules and routes; takes the arguments of ``NasMutator``."""

    kind: ClassVar[type[BaseMutable]] = DiffMutableModule


class DynamicValueMutator(_KindMutator):
    """Search groups of values; takes the arguments of ``NasMutator``."""

    kind: ClassVar[type[BaseMutable]] = MutableValue
