"""The shrink ratio of the observed range with the least mean squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.observers.base import aminmax, split_channels
from razordeploy.quantization.observers.search import (
    clipping_loss,
    exact_loss,
    histogram_clipping,
    histogram_loss,
    row_blocks,
    shrink_both,
)
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
        whole = self.histogram(scheme)
        found = []
        for block in row_blocks(*whole.counts.shape):
            rows = whole.rows(block)
            loss, clipping = histogram_loss(rows, scheme), histogram_clipping(rows, scheme)
            found.append(shrink_both(rows.low, rows.high, scheme, loss, self.steps, clipping))
        return _joined(found)

    def _exact(self, scheme: QScheme) -> tuple[Tensor, Tensor]:
        if scheme.ch_axis is None:
            rows = self.kept.reshape(1, -1)
        else:
            rows = split_channels(self.kept, scheme.ch_axis).transpose(0, 1).flatten(1)
        found = []
        for block in row_blocks(*rows.shape):
            part = rows[block].contiguous()
            low, high = (v.double() for v in part.aminmax(dim=1))
            loss, clipping = exact_loss(part, scheme), clipping_loss(part, scheme)
            found.append(shrink_both(low, high, scheme, loss, self.steps, clipping))
        return _joined(found)


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Lower and upper ends of all rows."""
    lows, highs = zip(*parts, strict=True)
    return torch.cat(lows), torch.cat(highs)
