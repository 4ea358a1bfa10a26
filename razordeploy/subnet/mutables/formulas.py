"""The arithmetic of derived mutables: small objects that hold their sources, so that they copy and pickle with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.widths import make_divisible

_SLACK = 1e-6


class Expand:
    """A source times a constant: an integer repeats every channel in place, as flattening (C, r) does."""

    derives = True

    def __init__(self, source: BaseMutable, ratio: int | float) -> None:
        self.source, self.ratio = source, ratio

    def choice(self) -> int:
        """The number, rounded down."""
        return _floor(amount(self.source) * self.ratio)

    def mask(self) -> Tensor:
        """Bool (channels * ratio,)."""
        mask = channels(self.source)
        if isinstance(self.ratio, int):
            return mask.repeat_interleave(self.ratio)
        return _prefix(mask, self.choice(), _floor(mask.numel() * self.ratio), self.source)


class Repeat:
    """Channels as they lie in a wider axis: each ``inner`` times in place, the whole ``outer`` times over."""

    derives = True

    def __init__(self, source: BaseMutable, inner: int = 1, outer: int = 1) -> None:
        self.source, self.inner, self.outer = source, inner, outer

    def choice(self) -> int:
        """The number of channels kept."""
        return amount(self.source) * self.inner * self.outer

    def mask(self) -> Tensor:
        """Bool (outer * channels * inner,)."""
        return channels(self.source).repeat_interleave(self.inner).repeat(self.outer)


class Placed:
    """Channels anywhere in a wider axis, by a table of positions; what is another's stays."""

    derives = True

    def __init__(self, source: BaseMutable, elements: Tensor) -> None:
        self.source, self.elements = source, elements

    def choice(self) -> int:
        """The number of positions kept."""
        return int(self.mask().sum())

    def mask(self) -> Tensor:
        """Bool (positions,): the source's mask at ``elements``, true where that is -1."""
        mask = channels(self.source)
        elements = self.elements.to(mask.device)
        return mask[elements.clamp(min=0)] | (elements < 0)


class Product:
    """Channels or a number times a mutable number."""

    derives = True

    def __init__(self, left: BaseMutable, right: BaseMutable) -> None:
        self.left, self.right = left, right

    def choice(self) -> int:
        """The number, rounded down."""
        return _floor(amount(self.left) * amount(self.right))

    def mask(self) -> Tensor:
        """Bool (channels * largest factor,): a prefix."""
        mask = channels(self.left)
        return _prefix(mask, self.choice(), _floor(mask.numel() * self.right.max_choice), self.left)


class Quotient:
    """A source divided by a constant or a mutable number, then made divisible."""

    derives = True

    def __init__(self, source: BaseMutable, ratio: int | float | BaseMutable, divisor: int) -> None:
        self.source, self.ratio, self.divisor = source, ratio, divisor

    def choice(self) -> int:
        """The number: rounded down, then to a multiple of ``divisor``."""
        return self._divided(amount(self.source), self._ratio())

    def mask(self) -> Tensor:
        """Bool (channels / smallest ratio,): a prefix."""
        mask = channels(self.source)
        smallest = self.ratio.min_choice if isinstance(self.ratio, BaseMutable) else self.ratio
        return _prefix(mask, self.choice(), self._divided(mask.numel(), smallest), self.source)

    def _ratio(self) -> int | float:
        return amount(self.ratio) if isinstance(self.ratio, BaseMutable) else self.ratio

    def _divided(self, value: int | float, ratio: int | float) -> int:
        return make_divisible(_floor(value / ratio), self.divisor)


class Sum:
    """Numbers added up."""

    derives = True

    def __init__(self, sources: Sequence[BaseMutable], constant: int | float = 0) -> None:
        self.sources, self.constant = tuple(sources), constant

    def choice(self) -> Any:
        """The number."""
        return sum(amount(source) for source in self.sources) + self.constant


class Concat:
    """Channels of several sources one after another, as ``torch.cat`` puts them."""

    derives = True

    def __init__(self, sources: Sequence[BaseMutable]) -> None:
        self.sources = tuple(sources)

    def choice(self) -> int:
        """The number of channels kept."""
        return int(self.mask().sum())

    def mask(self) -> Tensor:
        """Bool (sum of channels,)."""
        return torch.cat([channels(source) for source in self.sources])


def has_mask(mutable: BaseMutable) -> bool:
    """Tell whether ``mutable`` stands for channels."""
    if getattr(mutable, "mask_fn", True) is None:
        return False
    return hasattr(type(mutable), "current_mask")


def channels(mutable: BaseMutable) -> Tensor:
    """The mask of a channel mutable, bool (channels,)."""
    if not has_mask(mutable):
        raise ModelError(f"mutable '{mutable.name}' is a number, not channels: it has no mask")
    mask: Tensor = mutable.current_mask  # type: ignore[assignment]
    return mask.bool()


def amount(mutable: BaseMutable) -> Any:
    """The number that ``mutable`` stands for: channels kept, whatever its choice mode, or the chosen value."""
    return int(channels(mutable).sum()) if has_mask(mutable) else mutable.current_choice


def _floor(value: float) -> int:
    return math.floor(value + _SLACK)


def _prefix(source: Tensor, kept: int, total: int, mutable: BaseMutable) -> Tensor:
    active = int(source.sum())
    if not bool(source[:active].all()):
        raise ModelError(
            f"mutable '{mutable.name}' keeps channels that are no prefix, so no fraction of them can be derived",
            hint="derive from a SequentialMutableChannel, or by an integer ratio",
        )
    return torch.arange(total, device=source.device) < kept
