"""Numbers and other plain values that a search may choose: kernel sizes, depths, expand ratios, input sizes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.derived import DerivedMethodMixin


class MutableValue(DerivedMethodMixin, BaseMutable):
    """One of a list of values.

    Args:
        value_list: the choices, all of one type; lists become tuples.
        default_value: the choice to begin with; None takes the first.
        alias: as of every mutable.
        init_cfg: as of every mutable.

    Raises:
        ModelError: no values, values of different types, or a default that is none of them.
    """

    def __init__(
        self,
        value_list: Sequence[Any],
        default_value: Any = None,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(alias, init_cfg)
        values = [_plain(value) for value in value_list]
        if not values:
            raise ModelError("expected a value_list of at least one value, got none")
        for value in values:
            if type(value) is not type(values[0]):
                raise ModelError(
                    f"expected values of one type in value_list, got {values[0]!r} and {value!r}",
                    hint="write 3.0 instead of 3 beside 3.5",
                )
        self._value_list = values
        self._current_choice: Any = None
        self.current_choice = values[0] if default_value is None else default_value

    @property
    def mutable_prefix(self) -> str:
        """``value``."""
        return "value"

    @property
    def choices(self) -> list[Any]:
        """The values."""
        return list(self._value_list)

    @property
    def current_choice(self) -> Any:
        """The value in use."""
        return self._current_choice

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        choice = _plain(choice)
        self._check_choice(choice)
        # A file may hold 4 where the list holds 4.0; what is used is the list's.
        self._current_choice = next(value for value in self._value_list if value == choice)

    def fix_chosen(self, chosen: Any) -> None:
        """Use ``chosen`` for good; raises ``ModelError`` where it is none of the values."""
        self._refuse_second_fix()
        self.current_choice = chosen
        self.is_fixed = True

    def export_chosen(self) -> Any:
        """The value as a subnet file holds it: tuples become lists."""
        choice = self.current_choice
        return list(choice) if isinstance(choice, tuple) else choice

    def extra_repr(self) -> str:
        """The values and the one in use."""
        return f"choices={self._value_list}, current_choice={self._current_choice}"


class OneShotMutableValue(MutableValue):
    """A value that can be sampled; the list is sorted, and the largest value is the default."""

    def __init__(
        self,
        value_list: Sequence[Any],
        default_value: Any = None,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        ordered = sorted(_plain(value) for value in value_list)
        if default_value is None and ordered:
            default_value = ordered[-1]
        super().__init__(ordered, default_value, alias, init_cfg)

    def sample_choice(self) -> Any:
        """Each value with the same probability."""
        return random.choice(self._value_list)

    @property
    def max_choice(self) -> Any:
        """The last in order."""
        return self._value_list[-1]

    @property
    def min_choice(self) -> Any:
        """The first in order."""
        return self._value_list[0]


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(value) if isinstance(value, list) else value
