"""A histogram of everything seen, whose range grows by exact merging of bins: no count is lost or moved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.observers.base import Observer, split_channels

# 2**-100 is far below any scale that matters, and bins / 2**-100 still fits float32.
_MIN_EXPONENT, _MAX_EXPONENT = -100, 128
# Values binned at a time: the temporaries then stay in the cache.
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts over equal bins, one row per tensor or per channel (R rows, B bins), cropped to the bins in use."""

    counts: Tensor
    """``(R, B)`` float64: values per bin, exact zeros left out."""
    zeros: Tensor
    """``(R,)`` float64: exact zeros; every grid represents them without error."""
    edges: Tensor
    """``(R, B + 1)`` float64: bin edges; 0 is always the lower edge of a bin."""
    low: Tensor
    """``(R,)`` float64: smallest value."""
    high: Tensor
    """``(R,)`` float64: largest value."""

    def rows(self, block: slice) -> Histogram:
        """Some of the rows; nothing is copied."""
        return Histogram(
            counts=self.counts[block],
            zeros=self.zeros[block],
            edges=self.edges[block],
            low=self.low[block],
            high=self.high[block],
        )


class HistogramBase(Observer):
    """Collects the histogram; a subclass chooses a range from it.

    Row r has ``2 * bins`` bins of width ``2**exponent[r] / bins``, and 0 is the edge in the middle. When a value does
    not fit, the exponent grows and neighbouring bins are added up. Every value therefore lies in the bin in which it
    would lie had the final range been known from the start: the order and the cutting of the data do not matter.
    Between a half and all of the bins on the wider side are in use. Memory: 16 bytes * bins a row.
    """

    counts: Tensor
    zeros: Tensor
    exponent: Tensor
    min_val: Tensor
    max_val: Tensor

    def __init__(self, *, bins: int = 2048, ch_axis: int | None = None) -> None:
        super().__init__(ch_axis=ch_axis)
        if bins < 16 or bins & (bins - 1):
            raise RecipeError(f"expected bins to be a power of two from 16 up (1024, 2048, 4096 ...), got {bins}")
        self.bins = bins
        self.register_buffer("counts", torch.zeros(0, 2 * bins, dtype=torch.int64))
        self.register_buffer("zeros", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("exponent", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("min_val", torch.zeros(0))
        self.register_buffer("max_val", torch.zeros(0))

    def reset(self) -> None:
        """Forget everything observed."""
        super().reset()
        for name in ("counts", "zeros", "exponent", "min_val", "max_val"):
            setattr(self, name, getattr(self, name)[:0].clone())

    def _update(self, x: Tensor, low: Tensor, high: Tensor) -> None:
        low, high = low.reshape(-1), high.reshape(-1)
        extent = torch.maximum(low.abs(), high.abs())
        # frexp gives extent = m * 2**e with m < 1, so every |x| is below 2**e.
        exponent = torch.frexp(extent).exponent.masked_fill(extent == 0, _MIN_EXPONENT)
        exponent = exponent.clamp(_MIN_EXPONENT, _MAX_EXPONENT).to(torch.int32)
        if self.counts.shape[0] == 0:
            self.counts = self.counts.new_zeros(low.numel(), 2 * self.bins)
            self.zeros = self.zeros.new_zeros(low.numel())
            self.exponent, self.min_val, self.max_val = exponent, low, high
        else:
            exponent = torch.maximum(self.exponent, exponent)
            self.counts = merge_bins(self.counts, exponent - self.exponent)
            self.exponent = exponent
            self.min_val = torch.minimum(self.min_val, low)
            self.max_val = torch.maximum(self.max_val, high)
        self._count(x)

    def _count(self, x: Tensor) -> None:
        """Add ``x`` to the bins; multiplying by a power of two is exact, so no value lands next to its bin."""
        per_unit = (self.bins * torch.exp2(-self.exponent.double())).float()
        rows, width = self.counts.shape
        if self.ch_axis is None:
            factor = per_unit.item()
            for part in x.reshape(-1).split(_CHUNK):
                # bincount on int32 is several times faster than on int64.
                index = (part * factor).floor_().to(torch.int32).add_(self.bins)
                self.counts += torch.bincount(index, minlength=width)
                self.zeros += part.numel() - _nonzeros(part.view(1, 1, -1))
            return
        parts = split_channels(x, self.ch_axis)
        start = (torch.arange(rows, dtype=torch.int32, device=x.device) * width + self.bins).view(-1, 1)
        for part in parts.split(max(1, _CHUNK // parts[0].numel())):
            index = (part * per_unit.view(-1, 1)).floor_().to(torch.int32).add_(start)
            self.counts += torch.bincount(index.reshape(-1), minlength=rows * width).view(rows, width)
            self.zeros += part.numel() // rows - _nonzeros(part)

    def histogram(self, scheme: QScheme) -> Histogram:
        """Give the rows that a scheme needs; the channels are added up, exactly, for a per-tensor one."""
        counts, zeros, exponent, low, high = self.counts, self.zeros, self.exponent, self.min_val, self.max_val
        if scheme.ch_axis is None and counts.shape[0] > 1:
            widest = exponent.max()
            counts = merge_bins(counts, widest - exponent).sum(0, keepdim=True)
            zeros, exponent = zeros.sum(0, keepdim=True), widest.view(1)
            low, high = low.amin(0, keepdim=True), high.amax(0, keepdim=True)
        counts = counts.clone()
        counts[:, self.bins] -= zeros
        used = counts.any(0).nonzero()
        # The bin that starts at 0 always stays, for the zeros.
        first = min(int(used[0]), self.bins) if used.numel() else self.bins
        last = max(int(used[-1]), self.bins) if used.numel() else self.bins
        steps = torch.arange(first - self.bins, last + 2 - self.bins, dtype=torch.float64, device=counts.device)
        edges = steps / self.bins * torch.exp2(exponent.double()).view(-1, 1)
        return Histogram(
            counts=counts[:, first : last + 1].double(),
            zeros=zeros.double(),
            edges=edges,
            low=low.double(),
            high=high.double(),
        )


def _nonzeros(parts: Tensor) -> Tensor:
    """Number of values other than 0 in every row of ``(before, R, after)``: ``(R,)`` int64.

    A float32 sum of ones is exact up to 2**24. Unlike ``torch.count_nonzero`` this does not branch on the values,
    which costs ten times as much behind a ReLU.
    """
    return parts.sign().abs_().sum(2).sum(0, dtype=torch.float64).to(torch.int64)


def merge_bins(counts: Tensor, shift: Tensor) -> Tensor:
    """Widen the bins of every row by ``2**shift``, with 0 in the middle: ``(R, 2B)`` counts, ``(R,)`` shifts."""
    if not bool(shift.any()):
        return counts
    bins = counts.shape[1] // 2
    index = torch.arange(-bins, bins, device=counts.device)
    # An arithmetic shift rounds towards minus infinity, as the floor that chose the bins did.
    target = (index >> shift.long().clamp(max=62).view(-1, 1)) + bins
    return torch.zeros_like(counts).scatter_add_(1, target, counts)
