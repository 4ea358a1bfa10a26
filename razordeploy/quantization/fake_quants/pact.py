"""Parameterized clipping activation: the end of the range is a parameter of the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.fake_quants.lsq import MIN_SCALE, LearnableFakeQuantize
from razordeploy.quantization.observers.base import Observer


class PACTFakeQuantize(LearnableFakeQuantize):
    """PACT (Choi et al. 2018, arXiv 1805.06085): values are clipped at a learned ``alpha``, then rounded.

    ``alpha`` is the upper end of the grid, ``scale * (qmax - zero_point)``; the lower end, where there is one, moves
    with it and the zero point stays. Equation 3: the gradient by ``alpha`` is 1 for values at or above it and 0 for
    those inside, where the scale has no gradient of its own. What is kept and trained is ``scale = alpha / k``, whose
    gradient is that of ``alpha`` divided by ``k``: a step of gradient descent moves ``alpha`` as the paper's does.

    Args:
        scheme: the grid.
        observer: where ``alpha`` starts.
        regularization: lambda of ``lambda / 2 * alpha ** 2`` in the loss, which keeps ``alpha`` small (section 3.1).
    """

    default_observer = "MinMaxObserver"

    def __init__(
        self,
        *,
        scheme: QScheme,
        observer: Observer | str | Mapping[str, Any] | None = None,
        regularization: float = 0.0,
    ) -> None:
        super().__init__(scheme=scheme, observer=observer)
        if not regularization >= 0:
            raise RecipeError(f"PACTFakeQuantize: expected a regularization of at least 0, got {regularization}")
        self.regularization = float(regularization)

    @property
    def alpha(self) -> Tensor:
        """Upper end of the range, 0-d or ``(C,)``."""
        q = self.qparams
        return q.scale * (q.scheme.qmax - q.zero_point)

    def _learned(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        grid = self.scheme.qmin, self.scheme.qmax
        result: Tensor = _Clip.apply(x, scale, zero_point, grid, self.regularization)
        return result


class _Clip(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, grid: tuple[int, int], regularization: float
    ) -> Tensor:
        step, offset = scale.clamp(min=MIN_SCALE), zero_point.round().clamp(*grid)
        ctx.save_for_backward(x, scale, offset)
        ctx.grid, ctx.regularization = grid, regularization
        rounded = (x.float() / step).round_()
        return rounded.clamp_(grid[0] - offset, grid[1] - offset).mul_(step).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, offset = ctx.saved_tensors
        qmin, qmax = ctx.grid
        step, grad = scale.clamp(min=MIN_SCALE), grads[0].float()
        v = x.float() / step
        above, below = v >= qmax - offset, v <= qmin - offset
        by_scale = None
        if ctx.needs_input_grad[1]:
            # A one-bit signed grid ends at its zero point: its reach is that of the other end.
            k = torch.where(qmax > offset, qmax - offset, offset - qmin).clamp(min=1)
            by_alpha = grad * (above * (qmax - offset) / k - below * (offset - qmin) / k)
            by_scale = by_alpha.sum_to_size(step.shape) / k + ctx.regularization * scale
        return (grad * ~(above | below)).to(x.dtype), by_scale, None, None, None
