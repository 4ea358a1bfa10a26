"""Learned rounding: whether each weight goes up or down is optimised, not decided by the nearest integer.

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020 (AdaRound).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from razordeploy.quantization.plan import QParams
from razordeploy.quantization.qparams import along_axis

ZETA, GAMMA = 1.1, -0.1
"""Stretch of the sigmoid, below equation 23."""


def rectified_sigmoid(v: Tensor) -> Tensor:
    """``h(V) = clip(sigmoid(V) (zeta - gamma) + gamma, 0, 1)`` (equation 23)."""
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def inverse_rectified_sigmoid(h: Tensor) -> Tensor:
    """V with ``h(V) = h`` for ``0 <= h <= 1``."""
    return -torch.log((ZETA - GAMMA) / (h - GAMMA) - 1)


def rounding_regularizer(v: Tensor, beta: float) -> Tensor:
    """``f_reg = sum(1 - |2 h(V) - 1|^beta)`` (equation 24): 0 where every h is 0 or 1."""
    return (1 - (2 * rectified_sigmoid(v) - 1).abs().pow(beta)).sum()


def beta_at(step: int, steps: int, *, start: float = 20.0, end: float = 2.0, warmup: float = 0.2) -> float | None:
    """beta of a step: None in the warm-up, when f_reg does not count, then falling along half a cosine."""
    first = warmup * steps
    if step < first:
        return None
    progress = (step - first) / max(1.0, steps - first)
    return end + 0.5 * (start - end) * (1 + float(torch.cos(torch.tensor(progress * torch.pi))))


class SoftRounding(nn.Module):
    """``W_soft = s clip(floor(W / s) + h(V) + z, qmin, qmax)`` (equation 22); starts as W where W is in range."""

    scale: Tensor
    zero: Tensor
    floor: Tensor

    def __init__(self, weight: Tensor, q: QParams) -> None:
        super().__init__()
        self.q = q
        self.register_buffer("scale", along_axis(q.scale, weight, q.scheme.ch_axis).to(weight.dtype))
        self.register_buffer("zero", along_axis(q.zero_point, weight, q.scheme.ch_axis).to(weight.dtype))
        steps = weight / self.scale
        self.register_buffer("floor", steps.floor())
        self.v = nn.Parameter(inverse_rectified_sigmoid(steps - self.floor))

    def integers(self, h: Tensor) -> Tensor:
        """Integers of the grid less its zero point, for a rounding ``h`` between 0 and 1."""
        scheme = self.q.scheme
        return (self.floor + h + self.zero).clamp(scheme.qmin, scheme.qmax) - self.zero

    def forward(self) -> Tensor:
        """The soft weight, in the shape of the weight."""
        return self.integers(rectified_sigmoid(self.v)) * self.scale

    @torch.no_grad()
    def rounded(self) -> Tensor:
        """The weight on the grid, every h rounded to 0 or 1; rounding it to the nearest gives itself."""
        return self.integers((rectified_sigmoid(self.v) >= 0.5).to(self.floor.dtype)) * self.scale

    def regularizer(self, beta: float) -> Tensor:
        """f_reg of this weight."""
        return rounding_regularizer(self.v, beta)
