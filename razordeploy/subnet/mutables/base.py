"""What every mutable has: choices, a current choice, and a way to fix it for good."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import nn

from razordeploy.errors import ModelError


class DumpChosen(NamedTuple):
    """What a mutable writes into a subnet file."""

    chosen: Any
    """The choice: a name, a list of names, a number or a list of numbers."""
    meta: dict[str, Any] | None = None
    """For people to read; loading ignores it."""


class BaseMutable(nn.Module):
    """A part of a supernet that can be chosen.

    It is a module, so that ``named_modules()`` gives it the path that subnet files name it by. It adds no key to a
    state dict: a supernet's checkpoint has the keys of the operations alone.

    Args:
        alias: a name of its own for the subnet file; mutables of one alias make the same choice.
        init_cfg: mmengine's initialisation of the candidates, applied by ``init_weights()``.
    """

    def __init__(self, alias: str | None = None, init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None) -> None:
        super().__init__()
        self.alias = alias
        self.init_cfg = init_cfg
        self._is_fixed = False
        self._name: str | None = None

    @property
    def name(self) -> str:
        """Path of the mutable in its model once a mutator or a loader has bound it, else its alias or type."""
        return self._name or self.alias or type(self).__name__

    def bind_mutable_name(self, prefix: str) -> None:
        """Remember the path under which the model holds this mutable."""
        self._name = prefix

    @property
    def mutable_prefix(self) -> str:
        """The first part of the names of search groups that hold mutables of this kind."""
        return "mutable"

    @property
    def sources(self) -> tuple[BaseMutable, ...]:
        """The mutables whose choices decide this one: itself, unless it is derived."""
        return (self,)

    @property
    def is_fixed(self) -> bool:
        """True once the choice is final."""
        return self._is_fixed

    @is_fixed.setter
    def is_fixed(self, value: bool) -> None:
        if self._is_fixed:
            raise ModelError(f"mutable '{self.name}' is fixed already: a subnet cannot become a supernet again")
        self._is_fixed = value

    @property
    def choices(self) -> Sequence[Any]:
        """Everything that ``current_choice`` may become."""
        raise NotImplementedError

    @property
    def num_choices(self) -> int:
        """Length of ``choices``."""
        return len(self.choices)

    @property
    def current_choice(self) -> Any:
        """What the forward pass uses now; None where nothing has been chosen yet."""
        raise NotImplementedError

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        raise NotImplementedError

    def sample_choice(self) -> Any:
        """A random choice; drawn in this process alone, so a distributed run samples through its mutator."""
        raise NotImplementedError

    @property
    def max_choice(self) -> Any:
        """The largest choice."""
        raise NotImplementedError

    @property
    def min_choice(self) -> Any:
        """The smallest choice."""
        raise NotImplementedError

    def check_chosen(self, chosen: Any) -> None:
        """Raise ``ModelError`` where ``chosen`` is no choice; change nothing."""
        before = self.current_choice
        try:
            self.current_choice = chosen
        finally:
            self.current_choice = before

    def fix_chosen(self, chosen: Any) -> None:
        """Choose for good.

        Raises:
            ModelError: fixed already, or ``chosen`` is no choice.
        """
        raise NotImplementedError

    def left_out(self, chosen: Any) -> Iterable[nn.Module]:
        """What it no longer holds once it is fixed at ``chosen``, if mutables may be in there."""
        return ()

    def export_chosen(self) -> Any:
        """The current choice as a subnet file holds it."""
        return self.current_choice

    def dump_chosen(self) -> DumpChosen:
        """The current choice, and for the reader all of them."""
        return DumpChosen(chosen=self.export_chosen(), meta={"all_choices": list(self.choices)})

    def init_weights(self) -> None:
        """Initialise what this mutable holds by ``init_cfg``, then the parts that know how to themselves."""
        if self.init_cfg:
            from mmengine.model import initialize

            initialize(self, self.init_cfg)
        for child in self.children():
            initialise = getattr(child, "init_weights", None)
            if callable(initialise):
                initialise()

    def _refuse_second_fix(self) -> None:
        if self.is_fixed:
            raise ModelError(f"mutable '{self.name}' is fixed already", hint="fix_chosen() may be called once")

    def _check_choice(self, choice: Any) -> None:
        known = list(self.choices)
        if isinstance(choice, bool) or choice not in known:
            raise ModelError(f"mutable '{self.name}': expected one of {known}, got {choice!r}")
