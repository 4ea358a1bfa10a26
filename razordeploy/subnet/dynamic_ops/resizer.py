"""Input sizes that a search may choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.base import DynamicMixin
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.static_ops.input_resizer import InputResizer


class DynamicInputResizer(DynamicMixin, InputResizer):
    """``InputResizer`` whose size follows the mutable of ``shape``; takes its arguments."""

    accepted_mutable_attrs: ClassVar[frozenset[str]] = frozenset({"shape"})

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """``InputResizer``."""
        return InputResizer

    @classmethod
    def check_convertible(cls, module: nn.Module) -> None:
        """Raise ``ModelError`` where ``module`` is no input resizer."""
        if not isinstance(module, InputResizer):
            raise ModelError(f"{cls.__name__} stands in for InputResizer, got {type(module).__name__}")

    def get_dynamic_shape(self) -> Any:
        """Side or (H, W) of the current choice; None where no mutable is registered."""
        return self._choice("shape", None)

    def forward(self, x: Tensor, size: int | Sequence[int] | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C, *size), by the current choice unless ``size`` is given."""
        return InputResizer.forward(self, x, self.get_dynamic_shape() if size is None else size)

    def _check_mutable(self, key: str, mutable: BaseMutable) -> None:
        for choice in mutable.choices:
            sides = choice if isinstance(choice, tuple) else (choice,)
            if not 1 <= len(sides) <= 3 or not all(isinstance(side, int) and side > 0 for side in sides):
                raise ModelError(f"DynamicInputResizer: expected sizes of 1 to 3 positive integers, got {choice!r}")

    def _slice_into(self, static: Any) -> None:
        shape = self.get_dynamic_shape()
        static._size = self._size if shape is None else shape
