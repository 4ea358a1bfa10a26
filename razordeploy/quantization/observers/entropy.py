"""The clipping threshold with the least Kullback-Leibler divergence."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.observers.streaming_histogram import HistogramBase


class EntropyObserver(HistogramBase):
    """TensorRT's calibration (Migacz, GTC 2017): the threshold t on |x| whose quantized histogram diverges least.

    For every t = i bins with i from the number of levels up: P is the first i bins with everything beyond added to
    the last one; Q is the first i bins cut into ``levels`` groups, each spread evenly over its non-empty bins. The t
    with the least KL(P, Q) wins, the largest among equals. Exact zeros, which every grid represents, are left out
    (TensorRT copies bin 1 over bin 0 for that reason). ``levels`` counts the levels of |x|: 128 for signed 8 bits
    and for unsigned data with both signs, 256 for unsigned data without negative values. Per tensor only.
    """

    def __init__(self, *, bins: int = 2048, ch_axis: int | None = None) -> None:
        super().__init__(bins=bins, ch_axis=ch_axis)
        if ch_axis is not None:
            raise RecipeError(
                f"EntropyObserver gives one range per tensor, got ch_axis={ch_axis}",
                hint="use MSEObserver, PercentileObserver or PerChannelMinMaxObserver for channels",
            )

    def _range(self, scheme: QScheme) -> tuple[Tensor, Tensor]:
        rows = self.histogram(scheme)
        edges = rows.edges[0].cpu().numpy()
        magnitudes, width = _fold(rows.counts[0].cpu().numpy(), edges)
        one_sided = not scheme.signed and bool((rows.low >= 0).all())
        levels = max(2, scheme.levels if one_sided else scheme.levels // 2)
        threshold = width * best_threshold(magnitudes, levels)
        return rows.low.clamp(min=-threshold), rows.high.clamp(max=threshold)


def _fold(counts: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, float]:
    """Histogram of |x| from bin 0 on, and the width of a bin."""
    width = float(edges[1] - edges[0])
    lower = np.rint(edges[:-1] / width).astype(np.int64)
    # Bin k covers [k, k + 1) widths: a negative one, mirrored, covers (-k - 1, -k].
    index = np.where(lower >= 0, lower, -lower - 1)
    return np.bincount(index, weights=counts), width


def best_threshold(counts: np.ndarray, levels: int) -> int:
    """Number of bins to keep: ``counts`` is the histogram of |x|; all of them when there are no more than levels."""
    total = len(counts)
    best, kept = np.inf, total
    for i in range(levels, total + 1):
        inside = counts[:i]
        outliers = counts[i:].sum()
        # Q has nothing where the histogram is empty: P must have nothing there either.
        if outliers and not inside[-1]:
            continue
        starts = (np.arange(levels) * i) // levels
        sums = np.add.reduceat(inside, starts)
        filled = np.add.reduceat((inside > 0).astype(np.float64), starts)
        sizes = np.diff(np.append(starts, i))
        q = np.repeat(sums / np.maximum(filled, 1), sizes)
        p = inside.astype(np.float64)
        p[-1] += outliers
        some = p > 0
        if not some.any():
            continue
        p, q = p[some], q[some]
        divergence = float((p * np.log(p * q.sum() / (q * p.sum()))).sum() / p.sum())
        if divergence <= best:
            best, kept = divergence, i
    return kept
