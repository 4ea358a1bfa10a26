"""Transposed convolutions of elastic width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvTransposeNd

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.base import DynamicChannelMixin, sliced_parameter
from razordeploy.subnet.selection import put, take


class DynamicConvTransposeMixin(DynamicChannelMixin, _ConvTransposeNd):
    """Elastic ``in_channels`` and ``out_channels`` of a transposed convolution of one group, or depthwise."""

    accepted_mutable_attrs: ClassVar[frozenset[str]] = frozenset({"in_channels", "out_channels"})
    conv_func: ClassVar[Callable[..., Tensor]]
    plain: ClassVar[type[nn.Module]]
    spatial_dims: ClassVar[int]

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """The plain transposed convolution."""
        return self.plain

    @classmethod
    def check_convertible(cls, module: nn.Module) -> None:
        """Raise ``ModelError`` where ``module`` is no such convolution."""
        if not isinstance(module, cls.plain):
            raise ModelError(f"{cls.__name__} stands in for {cls.plain.__name__}, got {type(module).__name__}")

    def get_dynamic_params(self) -> tuple[Tensor, Tensor | None]:
        """Weight (in kept, out kept / groups, ...) and bias of the current choice."""
        in_mask, out_mask = self._masks()
        weight = take(take(self.weight, in_mask, 0), out_mask if self.groups == 1 else None, 1)
        return weight, None if self.bias is None else take(self.bias, out_mask, 0)

    def _masks(self) -> tuple[Tensor | None, Tensor | None]:
        in_mask, out_mask = super()._masks()
        if self.groups == 1 or (in_mask is None and out_mask is None):
            return in_mask, out_mask
        if self.groups == self.in_channels == self.out_channels and (in_mask is None or out_mask is None):
            in_mask = out_mask = out_mask if in_mask is None else in_mask
        depthwise = self.groups == self.in_channels == self.out_channels
        if not depthwise or in_mask is None or out_mask is None or not torch.equal(in_mask, out_mask):
            raise ModelError(
                f"{type(self).__name__}: of {self.groups} groups, only a depthwise convolution that keeps the same "
                "channels before and after can be sliced"
            )
        return in_mask, out_mask

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, C_in kept, ...) -> (N, C_out kept, ...); full widths where ``masked`` is set."""
        if not self.masked:
            return self._transpose(input, output_size)
        in_mask, out_mask = self._masks()
        return put(self._transpose(take(input, in_mask, 1), output_size), out_mask, 1)

    def _transpose(self, x: Tensor, output_size: list[int] | None) -> Tensor:
        weight, bias = self.get_dynamic_params()
        stride: Any = self.stride
        padding: Any = self.padding
        dilation: Any = self.dilation
        extra = self._output_padding(
            x, output_size, stride, padding, list(self.kernel_size), self.spatial_dims, list(dilation)
        )
        groups = 1 if self.groups == 1 else weight.size(0)
        return type(self).conv_func(x, weight, bias, stride, padding, extra, groups, dilation)

    def _slice_into(self, static: Any) -> None:
        in_mask, out_mask = self._masks()
        static.weight = sliced_parameter(self.weight, in_mask, out_mask if self.groups == 1 else None)
        if self.bias is not None:
            static.bias = sliced_parameter(self.bias, out_mask)
        static.groups = 1 if self.groups == 1 else static.weight.size(0)
        static.in_channels = static.weight.size(0)
        static.out_channels = static.weight.size(1) * static.groups


class DynamicConvTranspose1d(DynamicConvTransposeMixin, nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` of elastic width; takes its arguments."""

    conv_func = staticmethod(functional.conv_transpose1d)
    plain = nn.ConvTranspose1d
    spatial_dims = 1


class DynamicConvTranspose2d(DynamicConvTransposeMixin, nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` of elastic width; takes its arguments."""

    conv_func = staticmethod(functional.conv_transpose2d)
    plain = nn.ConvTranspose2d
    spatial_dims = 2


class DynamicConvTranspose3d(DynamicConvTransposeMixin, nn.ConvTranspose3d):
    """``nn.ConvTranspose3d`` of elastic width; takes its arguments."""

    conv_func = staticmethod(functional.conv_transpose3d)
    plain = nn.ConvTranspose3d
    spatial_dims = 3
