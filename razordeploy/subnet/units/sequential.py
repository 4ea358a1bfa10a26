"""Units that keep their first channels."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.channel import (
    CHOICE_MODES,
    BaseMutableChannel,
    SequentialMutableChannel,
    SimpleMutableChannel,
)
from razordeploy.subnet.units.mutable_unit import MutableChannelUnit
from razordeploy.subnet.widths import check_choice, make_divisible


class SequentialMutableChannelUnit(MutableChannelUnit):
    """Keeps the first channels; a choice is their number or ratio.

    A ratio is rounded down to a number, and that to one that ``divisor``, ``min_value`` and ``min_ratio`` allow. A
    number has to be allowed itself. All channels are allowed always.

    Args:
        num_channels: channels of the unit.
        choice_mode: ``number`` or ``ratio``: what ``current_choice`` gives.
        divisor: what a number of channels has to be a multiple of.
        min_value: the fewest channels.
        min_ratio: rounding a ratio keeps at least this much of it.
    """

    def __init__(
        self,
        num_channels: int,
        choice_mode: str = "number",
        divisor: int = 1,
        min_value: int = 1,
        min_ratio: float = 0.9,
    ) -> None:
        super().__init__(num_channels)
        if choice_mode not in CHOICE_MODES:
            raise ModelError(f"expected a choice_mode of {CHOICE_MODES}, got {choice_mode!r}")
        for key, value in (("divisor", divisor), ("min_value", min_value)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ModelError(f"expected {key} of at least 1, got {value!r}")
        self.choice_mode = choice_mode
        self.divisor = divisor
        self.min_value = min_value
        self.min_ratio = min_ratio
        self.adopt_mask(self._new_mutable())

    def _new_mutable(self) -> SimpleMutableChannel:
        return SimpleMutableChannel(self.num_channels)

    @classmethod
    def init_from_mutable_channel(cls, mutable_channel: BaseMutableChannel) -> SequentialMutableChannelUnit:
        """A unit whose mask is that of a channel mutable which the model holds."""
        unit = cls(mutable_channel.num_channels, choice_mode=getattr(mutable_channel, "choice_mode", "number"))
        unit.mutable_channel = mutable_channel
        return unit

    @property
    def is_num_mode(self) -> bool:
        """True where choices are numbers, false where they are ratios."""
        return self.choice_mode == "number"

    def init_args(self) -> dict[str, Any]:
        """The arguments that this unit was made with."""
        return {
            "num_channels": self.num_channels,
            "choice_mode": self.choice_mode,
            "divisor": self.divisor,
            "min_value": self.min_value,
            "min_ratio": self.min_ratio,
        }

    @property
    def current_choice(self) -> Any:
        """Number or ratio of channels kept."""
        return self._choice_of(self.mutable_channel.activated_channels)

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        number = self.number_of(choice)
        if number < self.num_channels and not self._may_shrink():
            raise ModelError(f"unit '{self.name}' has to keep its {self.num_channels} channels: {self.reason}")
        self._set_number(number)

    def number_of(self, choice: int | float) -> int:
        """The number of channels that ``choice`` stands for.

        Raises:
            ModelError: 0, more than there are, or a number that ``divisor`` or ``min_value`` does not allow.
        """
        number = check_choice(choice, self.num_channels, f"unit '{self.name}'")
        allowed = self.allowed_number(number)
        if isinstance(choice, int) and allowed != number:
            step, low = self._step(), max(1, self.min_value)
            near = sorted({make_divisible(number - number % step, step, step), min(allowed, self.num_channels)})
            raise ModelError(
                f"unit '{self.name}': expected a multiple of {step} of at least {low}, or all {self.num_channels} "
                f"channels, got {number}",
                hint=f"take {' or '.join(str(value) for value in near if value >= low)}",
            )
        return allowed

    def allowed_number(self, number: int) -> int:
        """``number`` where it is allowed, else the one that ``make_divisible`` rounds it to."""
        step = self._step()
        if number >= self.num_channels or (number % step == 0 and number >= self.min_value):
            return min(number, self.num_channels)
        low = math.ceil(self.min_value / step) * step
        return make_divisible(number, step, low, self.min_ratio, self.num_channels)

    def sample_choice(self) -> Any:
        """A random number of channels, rounded to an allowed one."""
        if not self._may_shrink():
            return self.max_choice
        return self._choice_of(self.allowed_number(random.randint(1, self.num_channels)))

    @property
    def max_choice(self) -> Any:
        """All channels."""
        return self._choice_of(self.num_channels)

    @property
    def min_choice(self) -> Any:
        """The fewest channels that are allowed."""
        return self._choice_of(self.allowed_number(1)) if self._may_shrink() else self.max_choice

    def _may_shrink(self) -> bool:
        return self.reason is None

    def _step(self) -> int:
        return math.lcm(self.divisor, self.segment_step)

    def _choice_of(self, number: int) -> int | float:
        return number if self.is_num_mode else number / self.num_channels

    def _set_number(self, number: int) -> None:
        if isinstance(self.mutable_channel, SequentialMutableChannel):
            self.mutable_channel.current_choice = number
        else:
            self.mutable_channel.current_choice = self._mask_of(number)

    def _mask_of(self, number: int) -> Tensor:
        """Bool (num_channels,): the channels that a choice of ``number`` keeps."""
        return self._best(torch.arange(self.num_channels, 0, -1), number)

    def _best(self, scores: Tensor, number: int) -> Tensor:
        """The mask of the ``number`` highest scores, with the same share of every segment; of equals the first."""
        mask = torch.zeros(self.num_channels, dtype=torch.bool)
        start = 0
        for length in self.segments:
            share = number * length // self.num_channels
            order = scores[start : start + length].argsort(descending=True, stable=True)
            mask[start + order[:share].cpu()] = True
            start += length
        return mask
