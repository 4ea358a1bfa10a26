"""The integer grid a tensor is quantized to."""

from __future__ import annotations

from dataclasses import dataclass

from razordeploy.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class QScheme:
    """A uniform integer grid: ``q = clamp(round(x / scale) + zero_point, qmin, qmax)``."""

    bits: int = 8
    """Bit width, 1 to 16."""
    signed: bool = False
    """True: two's complement (qint8); False: unsigned (quint8)."""
    symmetric: bool = False
    """True: the grid is symmetric about zero; signed grids then have zero point 0."""
    symmetric_range: bool = False
    """True: drop the lowest signed value, so that 8 bits are [-127, 127]."""
    ch_axis: int | None = None
    """Axis with a scale of its own for every index; None means one scale for the tensor."""
    floor: float | None = None
    """Lowest value of an affine grid, a whole number of steps below 0: values under it mean the same to what reads
    them. None: the data tell."""

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise RecipeError(f"expected a bit width from 1 to 16, got {self.bits}")
        if self.symmetric_range and not self.signed:
            raise RecipeError("is_symmetric_range drops the lowest signed value: it needs a signed dtype (qint8)")
        if self.floor is not None and (self.symmetric or self.floor >= 0):
            raise RecipeError(f"expected a floor below 0 of an affine grid, got {self.floor:g}")

    @property
    def tag(self) -> str:
        """Short name: ``s8``, ``u8a`` where it is affine, ``s8c0`` with one scale a channel of axis 0, ``u8a-3`` with a
        floor."""  # noqa: D205, D209
        sign = "s" if self.signed else "u"
        axis = "" if self.ch_axis is None else f"c{self.ch_axis}"
        floor = "" if self.floor is None else f"{self.floor:g}"
        return f"{sign}{self.bits}{'' if self.symmetric else 'a'}{axis}{floor}"

    @property
    def qmin(self) -> int:
        """Lowest integer of the grid."""
        if not self.signed:
            return 0
        # One bit has no room to drop a level: {-1, 0} stays {-1, 0}.
        return -(2 ** (self.bits - 1)) + int(self.symmetric_range and self.bits > 1)

    @property
    def qmax(self) -> int:
        """Highest integer of the grid."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def levels(self) -> int:
        """Number of integers in the grid."""
        return self.qmax - self.qmin + 1
