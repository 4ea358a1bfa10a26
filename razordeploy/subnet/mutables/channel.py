"""Channels that a search or a pruner may keep."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.derived import DerivedMethodMixin, DerivedMutable
from razordeploy.subnet.mutables.formulas import Repeat
from razordeploy.subnet.widths import check_choice

CHOICE_MODES = ("number", "ratio")


class BaseMutableChannel(DerivedMethodMixin, BaseMutable):
    """A number of channels and a mask of those that are kept.

    Args:
        num_channels: the full width.
        alias: as of every mutable.
        init_cfg: as of every mutable.
    """

    def __init__(self, num_channels: int, alias: str | None = None, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(alias, init_cfg)
        if isinstance(num_channels, bool) or not isinstance(num_channels, int) or num_channels < 1:
            raise ModelError(f"expected num_channels of at least 1, got {num_channels!r}")
        self.num_channels = num_channels

    @property
    def mutable_prefix(self) -> str:
        """``channel``."""
        return "channel"

    @property
    def current_mask(self) -> Tensor:
        """Bool (num_channels,): true where a channel is kept."""
        raise NotImplementedError

    @property
    def activated_channels(self) -> int:
        """Channels that the mask keeps."""
        return int(self.current_mask.sum())

    def fix_chosen(self, chosen: Any = None) -> None:
        """Keep the channels of ``chosen``, or of the current choice where it is None, for good."""
        self._refuse_second_fix()
        if chosen is not None:
            self.current_choice = chosen
        self.is_fixed = True

    def extra_repr(self) -> str:
        """Width and how much of it is kept."""
        return f"name={self.name}, num_channels={self.num_channels}, activated_channels={self.activated_channels}"


class SimpleMutableChannel(BaseMutableChannel):
    """Any set of channels; a choice is a bool mask (num_channels,).

    ``mask`` is a buffer that no state dict holds: a supernet's keys are its operations'. A channel unit saves it.
    """

    mask: Tensor
    belongs_to_unit: bool = False
    """True where a channel unit owns the mask: its mutator exports it, not the model."""

    def __init__(self, num_channels: int, alias: str | None = None, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(num_channels, alias, init_cfg)
        self.register_buffer("mask", torch.ones(num_channels, dtype=torch.bool), persistent=False)

    @property
    def current_choice(self) -> Any:
        """The mask."""
        return self.mask.bool()

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        mask = torch.as_tensor(choice).to(self.mask.device)
        if mask.shape != (self.num_channels,):
            raise ModelError(
                f"mutable '{self.name}': expected a mask of {self.num_channels} channels, got shape {tuple(mask.shape)}"
            )
        self._set_mask(mask.bool())

    @property
    def current_mask(self) -> Tensor:
        """Bool (num_channels,)."""
        return self.mask.bool()

    @property
    def choices(self) -> list[Any]:
        """Every mask would be one: too many to list, so only the current one is."""
        return [self.current_choice]

    def export_chosen(self) -> Any:
        """The mask as 0 and 1."""
        return self.mask.int().tolist()

    def give_to_unit(self) -> None:
        """Save the mask in state dicts from now on: those of the channel unit that owns it."""
        self.belongs_to_unit = True
        self.register_buffer("mask", self.mask, persistent=True)

    def expand_mutable_channel(self, expand_ratio: int, outer: int = 1) -> DerivedMutable:
        """These channels in a wider axis: each ``expand_ratio`` times in place, the whole ``outer`` times over."""
        formula = Repeat(self, inner=expand_ratio, outer=outer)
        return DerivedMutable(formula.choice, formula.mask)

    def _set_mask(self, mask: Tensor) -> None:
        if not bool(mask.any()):
            raise ModelError(f"mutable '{self.name}': a mask that keeps no channel", hint="keep at least one")
        # A new tensor: autograd may still hold the old one of a forward pass that is under way.
        self.mask = mask.clone()


class SequentialMutableChannel(SimpleMutableChannel):
    """The first n channels; a choice is n, or n / num_channels in the mode ``ratio``.

    Either may be set in either mode: an int is a number, a float a ratio, rounded down to at least one channel.

    Args:
        num_channels: the full width.
        choice_mode: ``number`` or ``ratio``: what ``current_choice`` gives.
        alias: as of every mutable.
        init_cfg: as of every mutable.
    """

    def __init__(
        self,
        num_channels: int,
        choice_mode: str = "number",
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_channels, alias, init_cfg)
        if choice_mode not in CHOICE_MODES:
            raise ModelError(f"expected a choice_mode of {CHOICE_MODES}, got {choice_mode!r}")
        self.choice_mode = choice_mode

    @property
    def is_num_mode(self) -> bool:
        """True where choices are numbers, false where they are ratios."""
        return self.choice_mode == "number"

    @property
    def choices(self) -> list[Any]:
        """Every width from 1 to all."""
        return [self._choice_of(number) for number in range(1, self.num_channels + 1)]

    @property
    def current_choice(self) -> Any:
        """Number or ratio of channels kept."""
        return self._choice_of(self.activated_channels)

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        number = check_choice(choice, self.num_channels, f"mutable '{self.name}'")
        self._set_mask(torch.arange(self.num_channels, device=self.mask.device) < number)

    @property
    def max_choice(self) -> Any:
        """All channels."""
        return self.choices[-1]

    @property
    def min_choice(self) -> Any:
        """The fewest channels."""
        return self.choices[0]

    def sample_choice(self) -> Any:
        """Each choice with the same probability."""
        return random.choice(self.choices)

    def export_chosen(self) -> Any:
        """Number or ratio."""
        return self.current_choice

    def _choice_of(self, number: int) -> int | float:
        return number if self.is_num_mode else number / self.num_channels


SquentialMutableChannel = SequentialMutableChannel
"""mmrazor's spelling."""


class OneShotMutableChannel(SequentialMutableChannel):
    """The first n channels, for n of a list.

    Args:
        num_channels: the full width.
        candidate_choices: numbers or ratios, by ``choice_mode``; none: the full width alone.
        choice_mode: ``number`` or ``ratio``.
        alias: as of every mutable.
        init_cfg: as of every mutable.

    Raises:
        ModelError: a candidate that is 0, over the width, or not of the mode's type.
    """

    def __init__(
        self,
        num_channels: int,
        candidate_choices: Sequence[int | float] = (),
        choice_mode: str = "number",
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_channels, choice_mode, alias, init_cfg)
        self.candidate_choices = candidate_choices
        self.current_choice = self.max_choice

    @property
    def candidate_choices(self) -> list[Any]:
        """Numbers or ratios, ascending, each once."""
        return [self._choice_of(number) for number in self._numbers]

    @candidate_choices.setter
    def candidate_choices(self, choices: Sequence[int | float]) -> None:
        expected = int if self.is_num_mode else float
        for choice in choices:
            if type(choice) is not expected:
                raise ModelError(
                    f"mutable '{self.name}': expected candidate_choices of type {expected.__name__} in choice_mode "
                    f"'{self.choice_mode}', got {choice!r}"
                )
        numbers = {check_choice(choice, self.num_channels, f"candidate of mutable '{self.name}'") for choice in choices}
        self._numbers = sorted(numbers or {self.num_channels})

    @property
    def choices(self) -> list[Any]:
        """``candidate_choices``."""
        return self.candidate_choices

    @property
    def current_choice(self) -> Any:
        """Number or ratio of channels kept."""
        return self._choice_of(self.activated_channels)

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        number = check_choice(choice, self.num_channels, f"mutable '{self.name}'")
        if number not in self._numbers:
            raise ModelError(f"mutable '{self.name}': expected one of {self.candidate_choices}, got {choice!r}")
        self._set_mask(torch.arange(self.num_channels, device=self.mask.device) < number)


class SlimmableMutableChannel(OneShotMutableChannel):
    """The widths of the switches of a slimmable network, as numbers (Yu et al. 2019, arXiv 1812.08928)."""
