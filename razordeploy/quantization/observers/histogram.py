"""The range with the least squared error, both ends free."""

from __future__ import annotations

from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.observers.search import histogram_loss, shrink_both, shrink_ends
from razordeploy.quantization.observers.streaming_histogram import HistogramBase


class HistogramObserver(HistogramBase):
    """The L2-optimal range of the histogram: what torch's observer of this name looks for, with a wider search.

    An affine grid has its two ends moved in turn; a symmetric one has only its extent to choose. ``steps`` ratios
    of an end are tried.
    """

    def __init__(self, *, bins: int = 2048, steps: int = 100, ch_axis: int | None = None) -> None:
        super().__init__(bins=bins, ch_axis=ch_axis)
        if steps < 1:
            raise RecipeError(f"expected steps of 1 or more, got {steps}")
        self.steps = steps

    def _range(self, scheme: QScheme) -> tuple[Tensor, Tensor]:
        rows = self.histogram(scheme)
        search = shrink_both if scheme.symmetric else shrink_ends
        return search(rows.low, rows.high, scheme, histogram_loss(rows, scheme), self.steps)
