"""Squared error of quantizing a histogram or the values themselves, and the search for the range with the least."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.quantization.observers.streaming_histogram import Histogram
from razordeploy.quantization.qparams import compute_qparams

_BLOCK = 1 << 17
"""Values of one block of rows: a megabyte in float64."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Total squared error per row, ``(R,)`` float64, of a scale (float32) and a zero point (int64), both ``(R, 1)``."""


def histogram_loss(histogram: Histogram, scheme: QScheme) -> Loss:
    """Squared error with the values of a bin spread evenly over it, integrated in closed form.

    In grid units v = x / scale + zero_point and c = clamp(round(v)), the integral of (v - c)^2 up to v is
    (c - qmin) / 12 + (v - c)^3 / 3 up to a constant, inside the grid and in both clipped parts.
    """
    # No value lies beyond low and high; without the clamp a mass at the very end (ReLU6) would look clipped.
    edges = histogram.edges.clamp(histogram.low.view(-1, 1), histogram.high.view(-1, 1))

    def loss(scale: Tensor, zero_point: Tensor) -> Tensor:
        v = edges / scale.double() + zero_point
        nearest = v.round().clamp_(scheme.qmin, scheme.qmax)
        off = v - nearest
        integral = (nearest - scheme.qmin).div_(12).add_(off * off * off / 3)
        width = v.diff(dim=1)
        mean = torch.where(width > 0, integral.diff(dim=1) / width, off[:, :-1] ** 2)
        return (mean * histogram.counts).sum(1) * scale[:, 0].double() ** 2

    return loss


def histogram_clipping(histogram: Histogram, scheme: QScheme) -> Loss:
    """Squared distance of every bin's nearer end to the interval that the grid spans: a lower bound of the loss."""
    edges = histogram.edges.clamp(histogram.low.view(-1, 1), histogram.high.view(-1, 1))
    left, right = edges[:, :-1], edges[:, 1:]

    def loss(scale: Tensor, zero_point: Tensor) -> Tensor:
        low, high = ((end - zero_point) * scale.double() for end in (scheme.qmin, scheme.qmax))
        below, above = (low - right).clamp_(min=0), (left - high).clamp_(min=0)
        return below.square_().add_(above.square_()).mul_(histogram.counts).sum(1)

    return loss


def exact_loss(rows: Tensor, scheme: QScheme) -> Loss:
    """Squared error of the values themselves: ``rows`` is ``(R, n)`` float32."""

    held = torch.empty_like(rows)
    low, high = scheme.qmin, scheme.qmax

    def loss(scale: Tensor, zero_point: Tensor) -> Tensor:
        error = torch.div(rows, scale, out=held).round_()
        if scheme.symmetric and scheme.signed:  # the zero point is 0
            error.clamp_(low, high)
        else:
            error.add_(zero_point).clamp_(low, high).sub_(zero_point)
        error.mul_(scale).sub_(rows).square_()
        return error.sum(1, dtype=torch.float64)

    return loss


def clipping_loss(rows: Tensor, scheme: QScheme) -> Loss:
    """Squared distance of the values to the interval that the grid spans: a lower bound of ``exact_loss``."""

    def loss(scale: Tensor, zero_point: Tensor) -> Tensor:
        inside = rows.clamp((scheme.qmin - zero_point) * scale, (scheme.qmax - zero_point) * scale)
        return inside.sub_(rows).square_().sum(1, dtype=torch.float64)

    return loss


def least_loss(low: Tensor, high: Tensor, scheme: QScheme, loss: Loss, clipping: Loss | None = None) -> Tensor:
    """Index of the range with the least loss, the first among equals: ranges are ``(K, R)``, the result ``(R,)``.

    ``clipping`` is the part of the loss that clipping makes. Where the ranges shrink it only grows, so the search
    stops once it alone is over the best loss of every row: this leaves out no range that could have won.
    """
    # All grids in one call: the many small operations would cost more than the losses.
    q = compute_qparams(low.reshape(-1), high.reshape(-1), scheme)
    scales, zero_points = (v.view(low.shape).unsqueeze(2).to(low.device) for v in (q.scale, q.zero_point))
    best = torch.full(low.shape[1:], torch.inf, dtype=torch.float64, device=low.device)
    index = torch.zeros_like(best, dtype=torch.int64)
    for k, grid in enumerate(zip(scales, zero_points, strict=True)):
        total = loss(*grid)
        index.masked_fill_(total < best, k)
        best = torch.minimum(best, total)
        if clipping is not None and k % 8 == 7 and bool((clipping(*grid) >= best).all()):
            break
    return index


def row_blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices over ``rows`` rows whose temporaries stay in the processor's cache; each stops its search by itself."""
    size = max(1, _BLOCK // max(1, width))
    for start in range(0, rows, size):
        yield slice(start, start + size)


def _ratios(steps: int, like: Tensor) -> Tensor:
    """1, 1 - 1/steps, ..., 1/steps as a column."""
    return torch.arange(steps, 0, -1, dtype=torch.float64, device=like.device).view(-1, 1) / steps


def shrink_both(
    low: Tensor, high: Tensor, scheme: QScheme, loss: Loss, steps: int, clipping: Loss | None = None
) -> tuple[Tensor, Tensor]:
    """Give the best of the ranges ``(r * low, r * high)``, r = 1, 1 - 1/steps, ..., 1/steps, for every row."""
    ratios = _ratios(steps, low)
    ratio = ratios[least_loss(low * ratios, high * ratios, scheme, loss, clipping), 0]
    return low * ratio, high * ratio


def shrink_ends(low: Tensor, high: Tensor, scheme: QScheme, loss: Loss, steps: int) -> tuple[Tensor, Tensor]:
    """Move the upper, the lower and again the upper end, each over ``steps`` ratios with the other one held."""
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    lows, highs = (v * _ratios(steps, v) for v in (low, high))
    rows = torch.arange(low.numel(), device=low.device)
    for lower in (False, True, False):
        if lower:
            low = lows[least_loss(lows, high.expand_as(lows), scheme, loss), rows]
        else:
            high = highs[least_loss(low.expand_as(highs), highs, scheme, loss), rows]
        if not bool(lows.any()):
            break
    return low, high
