"""Mutables that follow others: sums, products, quotients and concatenations of choices."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, cast

from torch import Tensor

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.base import BaseMutable, DumpChosen
from razordeploy.subnet.mutables.formulas import Concat, Expand, Product, Quotient, Sum, has_mask
from razordeploy.subnet.mutables.sources import copyable, trace_sources


class DerivedMethodMixin:
    """Arithmetic for mutables that stand for numbers or channels."""

    def derive_same_mutable(self) -> DerivedMutable:
        """One that always equals this."""
        return self.derive_expand_mutable(1)

    def derive_expand_mutable(self, expand_ratio: int | float) -> DerivedMutable:
        """This times ``expand_ratio``; channels are repeated in place (0, 0, 1, 1, ...) by an integer ratio."""
        if isinstance(expand_ratio, bool) or expand_ratio <= 0:
            raise ModelError(f"expected a positive expand_ratio, got {expand_ratio!r}")
        return self._derive(Expand(self._me(), expand_ratio))

    def derive_divide_mutable(self, ratio: int | float | BaseMutable, divisor: int = 8) -> DerivedMutable:
        """This divided by ``ratio``, rounded to the multiple of ``divisor`` that ``make_divisible`` gives."""
        if not isinstance(ratio, BaseMutable) and ratio <= 0:
            raise ModelError(f"expected a positive ratio, got {ratio!r}")
        return self._derive(Quotient(self._me(), ratio, divisor))

    @staticmethod
    def derive_concat_mutable(mutables: Iterable[BaseMutable]) -> DerivedMutable:
        """The channels of ``mutables`` one after another."""
        mutables = tuple(mutables)
        for mutable in mutables:
            if not has_mask(mutable):
                raise ModelError(f"expected channels to concatenate, got '{mutable.name}', which has no mask")
        formula = Concat(mutables)
        return DerivedMutable(formula.choice, formula.mask)

    def __mul__(self, other: object) -> DerivedMutable:
        """Times a number or a mutable number; at most one of two mutables may stand for channels."""
        if isinstance(other, int | float):
            return self.derive_expand_mutable(other)
        if not isinstance(other, BaseMutable):
            return NotImplemented
        left, right = self._me(), other
        if has_mask(right):
            if has_mask(left):
                raise ModelError(f"channels cannot be multiplied by channels: '{left.name}' * '{right.name}'")
            left, right = right, left
        formula = Product(left, right)
        return DerivedMutable(formula.choice, formula.mask if has_mask(left) else None)

    __rmul__ = __mul__

    def __floordiv__(self, other: object) -> DerivedMutable:
        """Divided by a number or mutable number, or by ``(number, divisor)``; the divisor is 8 unless given."""
        if isinstance(other, tuple) and len(other) == 2:
            return self.derive_divide_mutable(*other)
        if isinstance(other, int | float | BaseMutable):
            return self.derive_divide_mutable(other)
        return NotImplemented

    def __add__(self, other: object) -> DerivedMutable:
        """Plus a number or a mutable number; for channels see ``derive_concat_mutable``."""
        if has_mask(self._me()) or (isinstance(other, BaseMutable) and has_mask(other)):
            raise ModelError("channels cannot be added up", hint="derive_concat_mutable puts them one after another")
        if isinstance(other, BaseMutable):
            return DerivedMutable(Sum((self._me(), other)).choice)
        if isinstance(other, int | float):
            return DerivedMutable(Sum((self._me(),), other).choice)
        return NotImplemented

    __radd__ = __add__

    def _me(self) -> BaseMutable:
        return cast(BaseMutable, self)

    def _derive(self, formula: Expand | Quotient) -> DerivedMutable:
        return DerivedMutable(formula.choice, formula.mask if has_mask(self._me()) else None)


class DerivedMutable(DerivedMethodMixin, BaseMutable):
    """A choice computed from the choices of other mutables, its sources; it has no search space of its own.

    Deep copies follow the copied sources, also where ``choice_fn`` is a closure. Pickling needs functions that pickle
    knows: what ``*``, ``//``, ``+`` and the ``derive_*`` methods make can be pickled, a lambda cannot.

    Args:
        choice_fn: gives the current choice.
        mask_fn: gives the current mask, for channels; None: there is none.
        source_mutables: what the functions look at; None finds them in closures, bound objects and partial arguments.
        alias: as of every mutable.
        init_cfg: as of every mutable.

    Raises:
        ModelError: no source is found, or one of ``source_mutables`` is no mutable or is derived itself.
    """

    def __init__(
        self,
        choice_fn: Callable[[], Any],
        mask_fn: Callable[[], Tensor] | None = None,
        source_mutables: Iterable[BaseMutable] | None = None,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(alias, init_cfg)
        found = trace_sources(choice_fn, mask_fn) if source_mutables is None else tuple(source_mutables)
        if not found:
            raise ModelError(
                "a derived mutable needs sources, and its functions refer to none", hint="pass source_mutables=[...]"
            )
        for mutable in found:
            if not self.is_source_mutable(mutable):
                raise ModelError(f"expected source_mutables that are mutables and not derived, got {mutable!r}")
        # A tuple, so that they are not registered a second time: the model holds them elsewhere.
        self._sources = found
        self.choice_fn = copyable(choice_fn)
        self.mask_fn = None if mask_fn is None else copyable(mask_fn)

    @staticmethod
    def is_source_mutable(mutable: object) -> bool:
        """Tell whether ``mutable`` is one, and has choices of its own."""
        return isinstance(mutable, BaseMutable) and not isinstance(mutable, DerivedMutable)

    @property
    def sources(self) -> tuple[BaseMutable, ...]:
        """The mutables that decide, in the order in which the formula names them."""
        return self._sources

    @property
    def source_mutables(self) -> set[BaseMutable]:
        """``sources`` as a set."""
        return set(self._sources)

    @property
    def mutable_prefix(self) -> str:
        """``derived``."""
        return "derived"

    @property
    def is_fixed(self) -> bool:
        """True once all sources are fixed."""
        return all(mutable.is_fixed for mutable in self._sources)

    @is_fixed.setter
    def is_fixed(self, value: bool) -> None:
        raise ModelError(f"derived mutable '{self.name}' is fixed through its sources only")

    @property
    def choices(self) -> list[Any]:
        """The distinct values over all combinations of the sources' choices, in the order of that product."""
        before = [mutable.current_choice for mutable in self._sources]
        values: list[Any] = []
        try:
            for combination in itertools.product(*(mutable.choices for mutable in self._sources)):
                for mutable, choice in zip(self._sources, combination, strict=True):
                    mutable.current_choice = choice
                value = self.choice_fn()
                if value not in values:
                    values.append(value)
        finally:
            for mutable, choice in zip(self._sources, before, strict=True):
                mutable.current_choice = choice
        return values

    @property
    def num_choices(self) -> int:
        """1: its search space is its sources'."""
        return 1

    @property
    def current_choice(self) -> Any:
        """The value for the sources' current choices."""
        return self.choice_fn()

    @current_choice.setter
    def current_choice(self, choice: Any) -> NoReturn:
        raise ModelError(f"derived mutable '{self.name}' follows its sources: set theirs instead")

    @property
    def current_mask(self) -> Tensor:
        """Bool (channels,) for the sources' current choices."""
        if self.mask_fn is None:
            raise ModelError(f"derived mutable '{self.name}' is a number, not channels: it has no mask")
        return self.mask_fn()

    @property
    def activated_channels(self) -> int:
        """Channels that the mask keeps."""
        return int(self.current_mask.sum())

    @property
    def num_channels(self) -> int:
        """Length of the mask."""
        return self.current_mask.numel()

    @property
    def max_choice(self) -> Any:
        """The largest of ``choices``."""
        return max(self.choices)

    @property
    def min_choice(self) -> Any:
        """The smallest of ``choices``."""
        return min(self.choices)

    def fix_chosen(self, chosen: Any = None) -> None:
        """Nothing: fixing the sources fixes this."""

    def dump_chosen(self) -> DumpChosen:
        """The current value, for people to read; loading takes the sources'."""
        return DumpChosen(chosen=self.current_choice, meta=None)

    def __repr__(self) -> str:
        sources = ", ".join(mutable.name for mutable in self._sources)
        return f"{type(self).__name__}(current_choice={self.current_choice}, sources=[{sources}])"
