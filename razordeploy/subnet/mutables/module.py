"""Mutables whose choices are modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import nn

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.base import BaseMutable

Candidates: TypeAlias = Mapping[str, Any] | nn.ModuleDict
"""Modules or configs by name."""


class MutableModule(BaseMutable):
    """Base of the mutables that hold candidate modules.

    Args:
        module_kwargs: keywords that every candidate's config gets in addition, such as the channels at its place.
        alias: as of every mutable.
        init_cfg: as of every mutable.
    """

    def __init__(
        self,
        module_kwargs: Mapping[str, Any] | None = None,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(alias, init_cfg)
        self.module_kwargs = None if module_kwargs is None else dict(module_kwargs)
        self._current_choice: Any = None
        self._chosen: Any = None

    @property
    def mutable_prefix(self) -> str:
        """``module``."""
        return "module"

    @property
    def current_choice(self) -> Any:
        """The candidate in use; None: all of them."""
        return self._chosen if self.is_fixed else self._current_choice

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        if choice is not None:
            self._check_choice(choice)
        self._current_choice = choice


def one_of(candidates: Candidates | None, candidate_ops: Candidates | None) -> Candidates | None:
    """What is given of two names for the same.

    Raises:
        ModelError: both are.
    """
    if candidates is not None and candidate_ops is not None:
        raise ModelError("candidates and candidate_ops are two names for the same: give one")
    return candidate_ops if candidates is None else candidates


def build_candidates(candidates: object, module_kwargs: Mapping[str, Any] | None) -> nn.ModuleDict:
    """Make the candidates: modules are taken as they are, configs are built with ``module_kwargs`` added.

    Raises:
        ModelError: there are none, or they are neither modules nor configs.
        RecipeError: a config names an unknown component.
    """
    if not isinstance(candidates, Mapping | nn.ModuleDict):
        raise ModelError(f"expected candidates to be a dict or nn.ModuleDict, got {type(candidates).__name__}")
    if not candidates:
        raise ModelError("expected candidates with at least one candidate, got none")
    if isinstance(candidates, nn.ModuleDict):
        return candidates
    built = nn.ModuleDict()
    for name, candidate in candidates.items():
        if isinstance(candidate, nn.Module):
            built[name] = candidate
            continue
        from razordeploy.registry import build_model

        built[name] = build_model({**candidate, **(module_kwargs or {})}, f"candidate '{name}'")
    return built


def parameter_count(module: nn.Module) -> int:
    """Numbers in the parameters of ``module``."""
    return sum(parameter.numel() for parameter in module.parameters())
