"""What every mutator does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from razordeploy.errors import ModelError, nearest
from razordeploy.subnet.agree import agree

KINDS = ("random", "max", "min")


class BaseMutator(nn.Module):
    """Finds the search space of a supernet, samples from it and sets it.

    Members of one search group make one choice. Random choices are drawn on rank 0 for all ranks of a distributed run.

    Args:
        init_cfg: taken for mmengine's sake; a mutator has nothing to initialise.
    """

    def __init__(self, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.init_cfg = init_cfg
        self._groups: dict[str, list[Any]] | None = None

    def prepare_from_supernet(self, supernet: nn.Module) -> None:
        """Find the search space of ``supernet``; called once, before anything else."""
        raise NotImplementedError

    @property
    def search_groups(self) -> dict[str, list[Any]]:
        """Members by name of the group.

        Raises:
            ModelError: ``prepare_from_supernet()`` has not been called.
        """
        if self._groups is None:
            raise ModelError(f"{type(self).__name__} knows no supernet yet", hint="call prepare_from_supernet(model)")
        return self._groups

    def sample_choices(self, kind: str = "random") -> dict[str, Any]:
        """A choice for each group: ``random``, or the ``max`` or ``min`` of all; the same on every rank."""
        if kind not in KINDS:
            raise ModelError(f"expected to sample {' or '.join(KINDS)}, got {kind!r}")
        if kind == "max":
            return self.max_choices
        if kind == "min":
            return self.min_choices
        return agree(lambda: {name: self._sample(name, members) for name, members in self.search_groups.items()})

    def _sample(self, name: str, members: list[Any]) -> Any:
        return members[0].sample_choice()

    def set_choices(self, choices: Mapping[str, Any]) -> None:
        """Set the groups that are named; the others stay as they are, and so do all if one choice is refused.

        Raises:
            ModelError: a name that is no group, or a choice that does not fit.
        """
        known = self._names()
        before = self._snapshot()
        try:
            for name, choice in choices.items():
                if name not in known:
                    raise ModelError(f"no search group is called '{name}'", hint=nearest(str(name), known))
                for member in known[name]:
                    member.current_choice = choice
        except ModelError:
            self._restore(before)
            raise

    def _names(self) -> dict[str, list[Any]]:
        """Every name that ``set_choices`` understands."""
        return self.search_groups

    def _snapshot(self) -> Any:
        return self.current_choices

    def _restore(self, snapshot: Any) -> None:
        for name, members in self.search_groups.items():
            for member in members:
                member.current_choice = snapshot[name]

    @property
    def current_choices(self) -> dict[str, Any]:
        """The choice of each group that is in use."""
        return {name: members[0].current_choice for name, members in self.search_groups.items()}

    @property
    def max_choices(self) -> dict[str, Any]:
        """The largest choice of each group."""
        return {name: members[0].max_choice for name, members in self.search_groups.items()}

    @property
    def min_choices(self) -> dict[str, Any]:
        """The smallest choice of each group."""
        return {name: members[0].min_choice for name, members in self.search_groups.items()}

    def set_max_choices(self) -> None:
        """Set the largest choice of each group."""
        self.set_choices(self.max_choices)

    def set_min_choices(self) -> None:
        """Set the smallest choice of each group."""
        self.set_choices(self.min_choices)
