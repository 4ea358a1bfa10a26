"""The shrink ratio of the observed range with the least mean squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.observers.base import aminmax, split_channels
from razordeploy.quantization.observers.search import clipping_loss, exact_loss, histogram_loss, shrink_both
from razordeploy.quantization.observers.streaming_histogram import HistogramBase


class MSEObserver(HistogramBase):
    """Tries the range times r for r = 1, 1 - 1/steps, ..., 1/steps, and takes the least squared error of each row.

    As long as only one tensor was seen (weights, however often), the error is that of its values. From the second,
    different tensor on (activations), or above ``exact_values`` values, it comes from the histogram, so that memory
    does not depend on the number of samples.
    """

    kept: Tensor

    def __init__(
        self, *, steps: int = 100, bins: int = 2048, exact_values: int = 1 << 22, ch_axis: int | None = None
    ) -> None:
        super().__init__(bins=bins, ch_axis=ch_axis)
        if steps < 1:
            raise RecipeError(f"expected steps of 1 or more, got {steps}")
        self.steps = steps
        self.exact_values = exact_values
        self.register_buffer("kept", torch.zeros(0))

    def reset(self) -> None:
        """Forget everything observed."""
        super().reset()
        self.kept = self.kept.new_zeros(0)

    def _update(self, x: Tensor, low: Tensor, high: Tensor) -> None:
        first = self.kept.numel() == 0 and self.counts.shape[0] == 0
        if first and x.numel() <= self.exact_values:
            # A copy: the tensor may be a parameter that training changes in place.
            self.kept = x.clone()
            return
        if self.kept.numel():
            if torch.equal(self.kept, x):
                return
            super()._update(self.kept, *aminmax(self.kept, self.ch_axis))
            self.kept = self.kept.new_zeros(0)
        super()._update(x, low, high)

    def _range(self, scheme: QScheme) -> tuple[Tensor, Tensor]:
        if self.kept.numel():
            return self._exact(scheme)
        rows = self.histogram(scheme)
        return shrink_both(rows.low, rows.high, scheme, histogram_loss(rows, scheme), self.steps)

    def _exact(self, scheme: QScheme) -> tuple[Tensor, Tensor]:
        if scheme.ch_axis is None:
            rows = self.kept.reshape(1, -1)
        else:
            rows = split_channels(self.kept, scheme.ch_axis).transpose(0, 1).flatten(1)
        low, high = (v.double() for v in rows.aminmax(dim=1))
        return shrink_both(low, high, scheme, exact_loss(rows, scheme), self.steps, clipping_loss(rows, scheme))
