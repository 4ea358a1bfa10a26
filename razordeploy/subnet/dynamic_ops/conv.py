"""Convolutions of elastic width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.base import DynamicChannelMixin
from razordeploy.subnet.selection import take

_PLAIN: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Subclasses that compute what the plain operation does, whatever their forward() looks like.
_WRAPPERS = ("mmcv.cnn.bricks.wrappers",)


class DynamicConvMixin(DynamicChannelMixin, _ConvNd):
    """Elastic ``in_channels`` and ``out_channels`` of a plain, depthwise or grouped convolution.

    A grouped convolution has to keep as many input channels in each group that stays as in every other, and as many
    output channels; groups that keep none go. ``groups`` may follow a mutable number, which keeps the first groups.
    """

    accepted_mutable_attrs: ClassVar[frozenset[str]] = frozenset({"in_channels", "out_channels", "groups"})
    conv_func: ClassVar[Callable[..., Tensor]]

    @classmethod
    def check_convertible(cls, module: nn.Module) -> None:
        """Raise ``ModelError`` where ``module`` is no such convolution, or computes something of its own."""
        base: Any = cls._plain_base()
        kind: Any = type(module)
        if not isinstance(module, base):
            raise ModelError(f"{cls.__name__} stands in for {base.__name__}, got {kind.__name__}")
        own = kind.forward is not base.forward or kind._conv_forward is not base._conv_forward
        if own and kind.__module__ not in _WRAPPERS:
            raise ModelError(f"{kind.__name__} is no plain {base.__name__}: {cls.__name__} cannot stand in for it")

    @classmethod
    def _plain_base(cls) -> type[nn.Module]:
        return next(base for base in cls.__mro__ if base in _PLAIN)

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """The plain convolution."""
        return self._plain_base()

    def get_dynamic_params(self) -> tuple[Tensor, Tensor | None, Any]:
        """Weight and bias of the current choice, and the padding that goes with the kernel."""
        weight, bias = self._get_dynamic_params_by_mutable_channels(self.weight, self.bias)
        return weight, bias, self.padding

    def _get_dynamic_params_by_mutable_channels(
        self, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        in_mask, out_mask = self._masks()
        if self.groups == 1:
            weight = take(take(weight, out_mask, 0), in_mask, 1)
        else:
            weight = _grouped_weight(weight, in_mask, out_mask, self.groups)
        return weight, None if bias is None else take(bias, out_mask, 0)

    def _masks(self) -> tuple[Tensor | None, Tensor | None]:
        """Masks of input and output; of grouped convolutions one side follows the other where it has no mask."""
        in_mask, out_mask = super()._masks()
        groups = self._choice("groups", self.groups)
        if not 1 <= groups <= self.groups:
            raise ModelError(f"{type(self).__name__}: expected groups from 1 to {self.groups}, got {groups}")
        if groups < self.groups:
            alive = torch.arange(self.groups, device=self.weight.device) < groups
            return _spread(alive, self.in_channels), _spread(alive, self.out_channels)
        if self.groups > 1 and in_mask is None and out_mask is not None:
            in_mask = _spread(out_mask.view(self.groups, -1).any(1), self.in_channels)
        elif self.groups > 1 and out_mask is None and in_mask is not None:
            out_mask = _spread(in_mask.view(self.groups, -1).any(1), self.out_channels)
        return in_mask, out_mask

    def _current_groups(self, weight: Tensor) -> int:
        in_mask = self._masks()[0]
        kept = self.in_channels if in_mask is None else int(in_mask.sum())
        return kept // weight.size(1)

    def _forward_sliced(self, x: Tensor) -> Tensor:
        weight, bias, padding = self.get_dynamic_params()
        return self._convolve(x, weight, bias, padding, 1 if self.groups == 1 else self._current_groups(weight))

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Any, groups: int) -> Tensor:
        if self.padding_mode != "zeros":
            pads = [side for size in reversed(_sides(padding, weight, self.dilation)) for side in size]
            x, padding = functional.pad(x, pads, mode=self.padding_mode), 0
        return type(self).conv_func(x, weight, bias, self.stride, padding, self.dilation, groups)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in kept, ...) -> (N, C_out kept, ...); full widths where ``masked`` is set."""
        return self._run(x)

    def _slice_into(self, static: Any) -> None:
        weight, bias, padding = self.get_dynamic_params()
        static.groups = 1 if self.groups == 1 else self._current_groups(weight)
        static.in_channels = weight.size(1) * static.groups
        static.out_channels = weight.size(0)
        static.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
        static.weight.requires_grad_(self.weight.requires_grad)
        if bias is not None and self.bias is not None:
            static.bias = nn.Parameter(bias.detach().clone(), requires_grad=self.bias.requires_grad)
        _set_kernel(static, tuple(weight.shape[2:]), padding)


def _spread(groups: Tensor, width: int) -> Tensor | None:
    """The mask (width,) that keeps whole groups; None where it keeps all."""
    return None if bool(groups.all()) else groups.repeat_interleave(width // groups.numel())


def _grouped_weight(weight: Tensor, in_mask: Tensor | None, out_mask: Tensor | None, groups: int) -> Tensor:
    """Weight (out, in / groups, ...) of the groups that keep anything."""
    if in_mask is None and out_mask is None:
        return weight
    ones = torch.ones(1, dtype=torch.bool, device=weight.device)
    ins = (ones.expand(groups * weight.size(1)) if in_mask is None else in_mask.to(weight.device)).view(groups, -1)
    outs = (ones.expand(weight.size(0)) if out_mask is None else out_mask.to(weight.device)).view(groups, -1)
    kept_in, kept_out = ins.sum(1), outs.sum(1)
    alive = kept_in > 0
    if (
        not bool(alive.any())
        or not torch.equal(alive, kept_out > 0)
        or kept_in[alive].unique().numel() > 1
        or kept_out[alive].unique().numel() > 1
    ):
        raise ModelError(
            f"a convolution of {groups} groups has to keep equally many channels in every group that stays, "
            f"got {kept_in.tolist()} inputs and {kept_out.tolist()} outputs per group"
        )
    if bool(ins[alive].all()):
        return take(weight, outs.flatten(), 0)
    rows = weight.unflatten(0, (groups, -1))
    picked = [take(take(rows[g], outs[g], 0), ins[g], 1) for g in range(groups) if bool(alive[g])]
    return torch.cat(picked)


def _sides(padding: Any, weight: Tensor, dilation: tuple[int, ...]) -> list[tuple[int, int]]:
    """(before, after) of each spatial dimension."""
    if padding == "valid":
        return [(0, 0)] * (weight.dim() - 2)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(p, p) for p in padding]


def _set_kernel(static: Any, kernel_size: tuple[int, ...], padding: Any) -> None:
    """Kernel size and padding, with what torch derives from them."""
    static.kernel_size, static.padding = kernel_size, padding
    sides = _sides(padding, static.weight, static.dilation)
    static._reversed_padding_repeated_twice = [side for size in reversed(sides) for side in size]


class DynamicConv1d(DynamicConvMixin, nn.Conv1d):
    """``nn.Conv1d`` of elastic width; takes its arguments."""

    conv_func = staticmethod(functional.conv1d)


class DynamicConv2d(DynamicConvMixin, nn.Conv2d):
    """``nn.Conv2d`` of elastic width; takes its arguments."""

    conv_func = staticmethod(functional.conv2d)


class DynamicConv3d(DynamicConvMixin, nn.Conv3d):
    """``nn.Conv3d`` of elastic width; takes its arguments."""

    conv_func = staticmethod(functional.conv3d)
