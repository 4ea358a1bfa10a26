"""Fully connected layers of elastic width."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.base import DynamicChannelMixin, sliced_parameter
from razordeploy.subnet.selection import take

# Subclasses that compute what nn.Linear does, whatever their forward() looks like.
_WRAPPERS = ("mmcv.cnn.bricks.wrappers",)


class DynamicLinear(DynamicChannelMixin, nn.Linear):
    """``nn.Linear`` of elastic width; takes its arguments."""

    accepted_mutable_attrs: ClassVar[frozenset[str]] = frozenset({"in_features", "out_features"})
    attr_mappings: ClassVar[dict[str, str]] = {"in_channels": "in_features", "out_channels": "out_features"}
    in_dim: ClassVar[int] = -1
    out_dim: ClassVar[int] = -1

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """``nn.Linear``."""
        return nn.Linear

    @classmethod
    def check_convertible(cls, module: nn.Module) -> None:
        """Raise ``ModelError`` where ``module`` is no plain ``nn.Linear``."""
        kind = type(module)
        if not isinstance(module, nn.Linear):
            raise ModelError(f"{cls.__name__} stands in for Linear, got {kind.__name__}")
        if kind.forward is not nn.Linear.forward and kind.__module__ not in _WRAPPERS:
            raise ModelError(f"{kind.__name__} is no plain Linear: {cls.__name__} cannot stand in for it")

    def get_dynamic_params(self) -> tuple[Tensor, Tensor | None]:
        """Weight (out kept, in kept) and bias of the current choice."""
        in_mask, out_mask = self.mask_of("in_features"), self.mask_of("out_features")
        weight = take(take(self.weight, out_mask, 0), in_mask, 1)
        return weight, None if self.bias is None else take(self.bias, out_mask, 0)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in kept) -> (..., out kept); full widths where ``masked`` is set."""
        return self._run(input)

    def _forward_sliced(self, x: Tensor) -> Tensor:
        weight, bias = self.get_dynamic_params()
        return functional.linear(x, weight, bias)

    def _slice_into(self, static: Any) -> None:
        in_mask, out_mask = self.mask_of("in_features"), self.mask_of("out_features")
        static.weight = sliced_parameter(self.weight, out_mask, in_mask)
        if self.bias is not None:
            static.bias = sliced_parameter(self.bias, out_mask)
        static.out_features, static.in_features = static.weight.shape
