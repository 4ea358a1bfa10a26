"""Smallest and largest value: of everything seen, or as a moving average over batches."""

from __future__ import annotations

import torch
from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.observers.base import Observer


class MinMaxObserver(Observer):
    """The smallest and largest value seen, per tensor or per channel: no value is clipped."""

    min_val: Tensor
    max_val: Tensor

    def __init__(self, *, ch_axis: int | None = None) -> None:
        super().__init__(ch_axis=ch_axis)
        shape = () if ch_axis is None else (0,)
        self.register_buffer("min_val", torch.zeros(shape))
        self.register_buffer("max_val", torch.zeros(shape))

    def _update(self, x: Tensor, low: Tensor, high: Tensor) -> None:
        if self.count == (x.shape[0] if x.ndim else 1):
            self.min_val, self.max_val = low, high
        else:
            self._combine(low, high)

    def _combine(self, low: Tensor, high: Tensor) -> None:
        self.min_val = torch.minimum(self.min_val, low)
        self.max_val = torch.maximum(self.max_val, high)

    def _range(self, scheme: QScheme) -> tuple[Tensor, Tensor]:
        return self.min_val, self.max_val


class PerChannelMinMaxObserver(MinMaxObserver):
    """``MinMaxObserver`` per channel, along axis 0 unless told otherwise."""

    def __init__(self, *, ch_axis: int | None = 0) -> None:
        super().__init__(ch_axis=ch_axis)


class MovingAverageMinMaxObserver(MinMaxObserver):
    """Exponential moving average of every batch's minimum and maximum.

    ``v <- v + averaging_constant * (batch - v)`` (Jacob et al. 2018, section 3.1); the first batch sets ``v``.
    """

    def __init__(self, *, averaging_constant: float = 0.01, ch_axis: int | None = None) -> None:
        super().__init__(ch_axis=ch_axis)
        if not 0 < averaging_constant <= 1:
            raise RecipeError(f"expected an averaging_constant above 0 and up to 1, got {averaging_constant}")
        self.averaging_constant = averaging_constant

    def _combine(self, low: Tensor, high: Tensor) -> None:
        self.min_val = torch.lerp(self.min_val, low, self.averaging_constant)
        self.max_val = torch.lerp(self.max_val, high, self.averaging_constant)


class MovingAveragePerChannelMinMaxObserver(MovingAverageMinMaxObserver):
    """``MovingAverageMinMaxObserver`` per channel, along axis 0 unless told otherwise."""

    def __init__(self, *, averaging_constant: float = 0.01, ch_axis: int | None = 0) -> None:
        super().__init__(averaging_constant=averaging_constant, ch_axis=ch_axis)


class MeanMinMaxObserver(Observer):
    """Mean over the samples of every sample's minimum and maximum: NNCF's default for activations.

    Axis 0 is the batch; with ``ch_axis=0``, or for a vector or a scalar, the whole tensor is one sample. The sums are
    float64, so the way the data is cut into batches does not matter.
    """

    sum_min: Tensor
    sum_max: Tensor
    terms: Tensor

    def __init__(self, *, ch_axis: int | None = None) -> None:
        super().__init__(ch_axis=ch_axis)
        shape = () if ch_axis is None else (1,)
        self.register_buffer("sum_min", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("sum_max", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("terms", torch.zeros((), dtype=torch.int64))

    def reset(self) -> None:
        """Forget everything observed."""
        super().reset()
        for buffer in (self.sum_min, self.sum_max, self.terms):
            buffer.zero_()

    def _aminmax(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Extremes of every sample: ``(N,)``, or ``(N, C)`` per channel."""
        whole = x.ndim < 2 or (self.ch_axis is not None and self.ch_axis % x.ndim == 0)
        if whole:
            low, high = super()._aminmax(x)
            return low.unsqueeze(0), high.unsqueeze(0)
        if self.ch_axis is None:
            return x.flatten(1).amin(1), x.flatten(1).amax(1)
        n, axis = x.shape[0], self.ch_axis % x.ndim
        before, channels = x.shape[1:axis].numel(), x.shape[axis]
        parts = x.reshape(n, before, channels, -1)
        return parts.amin((1, 3)), parts.amax((1, 3))

    def _update(self, x: Tensor, low: Tensor, high: Tensor) -> None:
        self.sum_min = self.sum_min + low.sum(0, dtype=torch.float64)
        self.sum_max = self.sum_max + high.sum(0, dtype=torch.float64)
        self.terms += low.shape[0]

    def _range(self, scheme: QScheme) -> tuple[Tensor, Tensor]:
        return self.sum_min / self.terms, self.sum_max / self.terms
