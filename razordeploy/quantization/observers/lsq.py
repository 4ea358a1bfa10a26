"""The step size that learned-step-size training starts from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.quantization.observers.base import split_channels
from razordeploy.quantization.observers.minmax import MinMaxObserver
from razordeploy.quantization.qparams import middle_zero_point, representable_range

# Values added up in float32.
_RUN = 1 << 16


class LSQObserver(MinMaxObserver):
    """scale = 2 * mean|x| / sqrt(Qmax) (Esser et al. 2020, section 2.1), over everything seen, given as a range.

    An affine grid gets the zero point that places the range as the observed minimum and maximum lie.
    """

    abs_sum: Tensor
    values: Tensor

    def __init__(self, *, ch_axis: int | None = None) -> None:
        super().__init__(ch_axis=ch_axis)
        self.register_buffer("abs_sum", torch.zeros(() if ch_axis is None else (0,), dtype=torch.float64))
        self.register_buffer("values", torch.zeros((), dtype=torch.int64))

    def reset(self) -> None:
        """Forget everything observed."""
        super().reset()
        self.abs_sum = torch.zeros_like(self.abs_sum)
        self.values.zero_()

    def _update(self, x: Tensor, low: Tensor, high: Tensor) -> None:
        super()._update(x, low, high)
        # float32 within short runs, float64 between them: ten times faster than float64 throughout. torch.sum adds
        # pairwise; the vector norm does not, and drifts by 3e-4 over a run.
        if self.ch_axis is None:
            runs = [part.abs().sum() for part in x.reshape(-1).split(_RUN)]
            total = torch.stack(runs).sum(dtype=torch.float64)
        else:
            parts = split_channels(x, self.ch_axis)
            total = parts.abs().sum(2).sum(0, dtype=torch.float64)
        self.abs_sum = self.abs_sum + total if self.abs_sum.shape == total.shape else total
        self.values += x.numel() // max(1, total.numel())

    def _range(self, scheme: QScheme) -> tuple[Tensor, Tensor]:
        abs_sum, low, high, values = self.abs_sum, self.min_val.double(), self.max_val.double(), self.values
        if scheme.ch_axis is None and abs_sum.ndim:
            values = values * abs_sum.numel()
            abs_sum, low, high = abs_sum.sum(), low.amin(), high.amax()
        scale = 2 * abs_sum / values / math.sqrt(max(1, scheme.qmax))
        low, high = low.clamp(max=0.0), high.clamp(min=0.0)
        if scheme.symmetric:
            middle = torch.full_like(scale, middle_zero_point(scheme), dtype=torch.int64)
            zero_point = middle if scheme.signed else middle.masked_fill(low >= 0, 0)
            return representable_range(scale, zero_point, scheme)
        # A tensor of zeros has scale 0 and the range (0, 0), whatever the placing.
        below = (-low / (high - low)).nan_to_num(0.0)
        extent = scale * (scheme.levels - 1)
        return -extent * below, extent * (1 - below)


class LSQPerChannelObserver(LSQObserver):
    """``LSQObserver`` per channel, along axis 0 unless told otherwise."""

    def __init__(self, *, ch_axis: int | None = 0) -> None:
        super().__init__(ch_axis=ch_axis)
