"""Squared error of quantizing a histogram or the values themselves, and the search for the range with the least."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.quantization.observers.streaming_histogram import Histogram
from razordeploy.quantization.qparams import compute_qparams

Loss = Callable[[Tensor, Tensor], Tensor]
"""Total squared error per row, ``(R,)``, of the clipping range ``(low, high)``, both ``(R,)``."""


def histogram_loss(histogram: Histogram, scheme: QScheme) -> Loss:
    """Squared error with the values of a bin spread evenly over it, integrated in closed form.

    In grid units v = x / scale + zero_point and c = clamp(round(v)), the integral of (v - c)^2 up to v is
    (c - qmin) / 12 + (v - c)^3 / 3 up to a constant, inside the grid and in both clipped parts.
    """
    # No value lies beyond low and high; without the clamp a mass at the very end (ReLU6) would look clipped.
    edges = histogram.edges.clamp(histogram.low.view(-1, 1), histogram.high.view(-1, 1))

    def loss(low: Tensor, high: Tensor) -> Tensor:
        q = compute_qparams(low, high, scheme)
        scale = q.scale.to(edges).view(-1, 1)
        v = edges / scale + q.zero_point.to(edges).view(-1, 1)
        nearest = v.round().clamp_(scheme.qmin, scheme.qmax)
        off = v - nearest
        integral = (nearest - scheme.qmin) / 12 + off**3 / 3
        width = v.diff(dim=1)
        mean = torch.where(width > 0, integral.diff(dim=1) / width, off[:, :-1] ** 2)
        return (mean * histogram.counts).sum(1) * scale[:, 0] ** 2

    return loss


def exact_loss(rows: Tensor, scheme: QScheme) -> Loss:
    """Squared error of the values themselves: ``rows`` is ``(R, n)`` float32."""

    def loss(low: Tensor, high: Tensor) -> Tensor:
        q = compute_qparams(low, high, scheme)
        scale, zero_point = q.scale.to(rows.device).view(-1, 1), q.zero_point.to(rows.device).view(-1, 1)
        error = (rows / scale).round_().add_(zero_point).clamp_(scheme.qmin, scheme.qmax)
        error.sub_(zero_point).mul_(scale).sub_(rows).square_()
        return error.sum(1, dtype=torch.float64)

    return loss


def clipping_loss(rows: Tensor, scheme: QScheme) -> Loss:
    """Squared distance of the values to the interval that the grid spans: a lower bound of ``exact_loss``."""

    def loss(low: Tensor, high: Tensor) -> Tensor:
        q = compute_qparams(low, high, scheme)
        bottom = (scheme.qmin - q.zero_point) * q.scale
        top = (scheme.qmax - q.zero_point) * q.scale
        inside = rows.clamp(bottom.to(rows.device).view(-1, 1), top.to(rows.device).view(-1, 1))
        return inside.sub_(rows).square_().sum(1, dtype=torch.float64)

    return loss


def shrink_both(
    low: Tensor, high: Tensor, loss: Loss, steps: int, clipping: Loss | None = None
) -> tuple[Tensor, Tensor]:
    """Try the ranges ``(r * low, r * high)`` for r = 1, 1 - 1/steps, ..., 1/steps and give the best of each row.

    ``clipping`` is the part of the error that clipping makes. It only grows as r falls, so the search stops once it
    alone is over the best total of every row: this leaves out no range that could have won.
    """
    best = torch.full(low.shape, torch.inf, dtype=torch.float64, device=low.device)
    ratio = torch.ones_like(best)
    for step in range(steps, 0, -1):
        r = step / steps
        total = loss(low * r, high * r)
        ratio = torch.where(total < best, r, ratio)
        best = torch.minimum(best, total)
        if clipping is not None and step % 8 == 0 and bool((clipping(low * r, high * r) >= best).all()):
            break
    return low * ratio, high * ratio


def shrink_ends(low: Tensor, high: Tensor, loss: Loss, steps: int) -> tuple[Tensor, Tensor]:
    """Move the two ends in turn (upper, lower, upper), each over ``steps`` ratios, with the other one held."""
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    best_low, best_high = low, high
    for end in ("high", "low", "high"):
        best = torch.full(low.shape, torch.inf, dtype=torch.float64, device=low.device)
        chosen = high if end == "high" else low
        if not bool(chosen.any()):
            continue
        full = chosen
        for step in range(steps, 0, -1):
            moved = full * (step / steps)
            total = loss(best_low, moved) if end == "high" else loss(moved, best_high)
            chosen = torch.where(total < best, moved, chosen)
            best = torch.minimum(best, total)
        best_low, best_high = (best_low, chosen) if end == "high" else (chosen, best_high)
    return best_low, best_high
