"""Convolutions of elastic kernel size."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.conv import DynamicConv2d
from razordeploy.subnet.mutables.base import BaseMutable


class BigNasConv2d(DynamicConv2d):
    """A convolution of elastic width and kernel: a smaller kernel is the centre of the larger (BigNAS, 2003.11142).

    The padding shrinks with the kernel, so that the output keeps its size.
    """

    accepted_mutable_attrs: ClassVar[frozenset[str]] = DynamicConv2d.accepted_mutable_attrs | {"kernel_size"}

    dynamic_state: ClassVar[tuple[str, ...]] = (*DynamicConv2d.dynamic_state, "kernel_size_list")
    kernel_size_list: list[int] | None = None
    """Side lengths to choose from, ascending; None until a mutable is registered."""

    def get_dynamic_params(self) -> tuple[Tensor, Tensor | None, Any]:
        """Weight and bias of the current choice, and the padding that goes with the kernel."""
        weight, padding = self._get_dynamic_params_by_mutable_kernel_size(self.weight)
        weight, bias = self._get_dynamic_params_by_mutable_channels(weight, self.bias)
        return weight, bias, padding

    def _check_mutable(self, key: str, mutable: BaseMutable) -> None:
        if key != "kernel_size":
            super()._check_mutable(key, mutable)
            return
        sides = sorted(_side(choice) for choice in mutable.choices)
        if self.kernel_size != (sides[-1], sides[-1]):
            raise ModelError(
                f"{type(self).__name__}: expected a largest kernel of {self.kernel_size}, "
                f"got {sides[-1]} from mutable '{mutable.name}'"
            )
        for side in sides:
            if (sides[-1] - side) % 2:
                raise ModelError(
                    f"{type(self).__name__}: a kernel of {side} has no place in the middle of one of {sides[-1]}",
                    hint="choose kernel sizes that are all odd or all even",
                )
        self.kernel_size_list = sides

    def _current_side(self) -> int:
        return _side(self._choice("kernel_size", self.kernel_size[0]))

    def _padding_for(self, side: int) -> Any:
        if isinstance(self.padding, str):
            return self.padding
        pads = tuple(
            p - (self.kernel_size[0] - side) // 2 * d for p, d in zip(self.padding, self.dilation, strict=True)
        )
        if min(pads) < 0:
            raise ModelError(
                f"{type(self).__name__}: padding {self.padding} cannot shrink with the kernel from "
                f"{self.kernel_size[0]} to {side}",
                hint="give the largest kernel 'same' padding",
            )
        return pads

    def _get_dynamic_params_by_mutable_kernel_size(self, weight: Tensor) -> tuple[Tensor, Any]:
        if "kernel_size" not in self.mutable_attrs:
            return weight, self.padding
        side = self._current_side()
        return _centre(weight, side), self._padding_for(side)


class OFAConv2d(BigNasConv2d):
    """A convolution whose smaller kernels are learned linear maps of the larger (Once-for-All, arXiv 1908.09791).

    From one kernel size to the next smaller, its centre, flattened, is multiplied by ``trans_matrix_AtoB`` (B*B, B*B),
    shared by all filters and initialised to the identity.
    """

    def register_mutable_attr(self, attr: str, mutable: BaseMutable) -> None:
        """Let ``attr`` follow ``mutable``; a kernel size brings its transformation matrices."""
        super().register_mutable_attr(attr, mutable)
        if self._attr_key(attr) == "kernel_size":
            self._register_trans_matrix()

    def _register_trans_matrix(self) -> None:
        for source, target in self._steps():
            name = _matrix_name(source, target)
            if name not in self._parameters:
                eye = torch.eye(target**2, dtype=self.weight.dtype, device=self.weight.device)
                self.register_parameter(name, nn.Parameter(eye))

    def _steps(self) -> list[tuple[int, int]]:
        sides = sorted(set(self.kernel_size_list or []), reverse=True)
        return list(zip(sides, sides[1:], strict=False))

    def _get_dynamic_params_by_mutable_kernel_size(self, weight: Tensor) -> tuple[Tensor, Any]:
        if "kernel_size" not in self.mutable_attrs:
            return weight, self.padding
        side = self._current_side()
        for source, target in self._steps():
            if target < side:
                break
            matrix = getattr(self, _matrix_name(source, target))
            weight = functional.linear(_centre(weight, target).flatten(2), matrix).unflatten(2, (target, target))
        return weight, self._padding_for(side)

    def _slice_into(self, static: Any) -> None:
        super()._slice_into(static)
        for source, target in self._steps():
            static._parameters.pop(_matrix_name(source, target), None)


def _matrix_name(source: int, target: int) -> str:
    return f"trans_matrix_{source}to{target}"


def _side(choice: Any) -> int:
    if isinstance(choice, tuple) and len(set(choice)) == 1:
        choice = choice[0]
    if isinstance(choice, bool) or not isinstance(choice, int) or choice < 1:
        raise ModelError(f"expected a square kernel size of at least 1, got {choice!r}")
    return choice


def _centre(weight: Tensor, side: int) -> Tensor:
    start = (weight.size(-1) - side) // 2
    return weight[..., start : start + side, start : start + side]
