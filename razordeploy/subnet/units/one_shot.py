"""Units with a list of widths."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.channel import BaseMutableChannel, OneShotMutableChannel
from razordeploy.subnet.units.sequential import SequentialMutableChannelUnit


class OneShotMutableChannelUnit(SequentialMutableChannelUnit):
    """Keeps the first n channels, for n of a list (AutoSlim, Yu and Huang 2019, arXiv 1903.11728).

    Args:
        num_channels: channels of the unit.
        candidate_choices: numbers or ratios, by ``choice_mode``; each is rounded to an allowed number; none: all
            channels.
        choice_mode: as of ``SequentialMutableChannelUnit``, and so are ``divisor``, ``min_value`` and ``min_ratio``.
        divisor: see there.
        min_value: see there.
        min_ratio: see there.
    """

    def __init__(
        self,
        num_channels: int,
        candidate_choices: Sequence[int | float] = (0.5, 1.0),
        choice_mode: str = "ratio",
        divisor: int = 1,
        min_value: int = 1,
        min_ratio: float = 0.9,
    ) -> None:
        super().__init__(num_channels, choice_mode, divisor, min_value, min_ratio)
        self.alter_candidates(candidate_choices)

    @classmethod
    def init_from_mutable_channel(cls, mutable_channel: BaseMutableChannel) -> OneShotMutableChannelUnit:
        """A unit whose mask and candidates are those of a channel mutable which the model holds."""
        if not isinstance(mutable_channel, OneShotMutableChannel):
            raise ModelError(
                f"{cls.__name__} needs a OneShotMutableChannel, got {type(mutable_channel).__name__} "
                f"'{mutable_channel.name}'"
            )
        unit = cls(mutable_channel.num_channels, mutable_channel.candidate_choices, mutable_channel.choice_mode)
        unit.mutable_channel = mutable_channel
        return unit

    def alter_candidates(self, candidate_choices: Sequence[int | float]) -> None:
        """Choose from ``candidate_choices`` from now on, beginning with the widest."""
        expected = int if self.is_num_mode else float
        for choice in candidate_choices:
            if type(choice) is not expected:
                raise ModelError(
                    f"unit '{self.name}': expected candidate_choices of type {expected.__name__} in choice_mode "
                    f"'{self.choice_mode}', got {choice!r}"
                )
        self._given = list(candidate_choices) or [self.num_channels if self.is_num_mode else 1.0]
        self._set_number(max(self.candidate_numbers))

    @property
    def candidate_numbers(self) -> list[int]:
        """Numbers of channels, in the order and with the repetitions of the list given."""
        return [self.number_of(choice) for choice in self._given]

    @property
    def candidate_choices(self) -> list[Any]:
        """The same as numbers or ratios, by ``choice_mode``."""
        return [self._choice_of(number) for number in self.candidate_numbers]

    @property
    def choices(self) -> list[Any]:
        """The candidates, ascending, each once."""
        return [self._choice_of(number) for number in sorted(set(self.candidate_numbers))]

    def init_args(self) -> dict[str, Any]:
        """The arguments that this unit was made with."""
        return {**super().init_args(), "candidate_choices": self.candidate_choices}

    @property
    def current_choice(self) -> Any:
        """Number or ratio of channels kept."""
        return self._choice_of(self.mutable_channel.activated_channels)

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        number = self.number_of(choice)
        if number not in self.candidate_numbers:
            raise ModelError(f"unit '{self.name}': expected one of {self.choices}, got {choice!r}")
        if number < self.num_channels and not self._may_shrink():
            raise ModelError(f"unit '{self.name}' has to keep its {self.num_channels} channels: {self.reason}")
        self._set_number(number)

    def sample_choice(self) -> Any:
        """Each candidate with the same probability."""
        return random.choice(self.choices)

    @property
    def max_choice(self) -> Any:
        """The widest candidate."""
        return self.choices[-1]

    @property
    def min_choice(self) -> Any:
        """The narrowest candidate."""
        return self.choices[0]
