"""The range that leaves out a given share of the values at either end."""

from __future__ import annotations

import torch
from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.observers.streaming_histogram import HistogramBase


class PercentileObserver(HistogramBase):
    """From the ``100 - percentile`` to the ``percentile`` percentile of all values, in percent.

    Values are spread evenly over their bin, so an end is off by one bin at most; between two values it is
    interpolated linearly, as ``numpy.percentile`` does.
    """

    def __init__(self, *, percentile: float = 99.99, bins: int = 2048, ch_axis: int | None = None) -> None:
        super().__init__(bins=bins, ch_axis=ch_axis)
        if not 50 < percentile <= 100:
            raise RecipeError(f"expected a percentile above 50 and up to 100 (percent), got {percentile}")
        self.percentile = percentile

    def _range(self, scheme: QScheme) -> tuple[Tensor, Tensor]:
        rows = self.histogram(scheme)
        # The zeros are left out of the counts: put them back at the bin that starts at 0.
        counts, edges = rows.counts.clone(), rows.edges
        counts[:, int((edges[0] < 0).sum())] += rows.zeros
        cumulative = counts.cumsum(1)
        ends = []
        for percent in (100 - self.percentile, self.percentile):
            rank = (cumulative[:, -1:] - 1) * (percent / 100)
            below, above = (_order_statistic(k, counts, cumulative, edges) for k in (rank.floor(), rank.ceil()))
            value = torch.lerp(below, above, rank - rank.floor())[:, 0]
            ends.append(value.clamp(rows.low, rows.high))
        return ends[0], ends[1]


def _order_statistic(k: Tensor, counts: Tensor, cumulative: Tensor, edges: Tensor) -> Tensor:
    """The k-th smallest value (from 0) of every row, to within its bin: ``(R, 1)``."""
    index = torch.searchsorted(cumulative, k, right=True).clamp(max=counts.shape[1] - 1)
    inside = k - (cumulative.gather(1, index) - counts.gather(1, index)) + 0.5
    left, right = edges.gather(1, index), edges.gather(1, index + 1)
    return left + (right - left) * inside / counts.gather(1, index).clamp(min=1)
