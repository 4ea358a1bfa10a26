"""A layer and its batch norm, trained as the one layer that they become."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.capture.batchnorm import FoldedNorm
from razordeploy.quantization.fake_quants.base import FakeQuantizeBase
from razordeploy.quantization.plan import QParams

_TINY = 1e-12


class FoldedLayer(nn.Module):
    """A convolution or linear layer whose folded weight is rounded (Krishnamoorthi 2018, section 3.2.2).

    With ``f = gamma / sqrt(running variance + eps)`` the engine stores ``W f`` on its grid. While the norm is live,
    that grid is used, and the result is divided by ``f`` again and normalised by the batch. Frozen, and in evaluation,
    the layer computes ``y = W f x + b'``, which is what is exported.

    A grid for each output channel is kept, and trained, relative to ``|f|``: rounding ``W f`` to steps of ``s`` is
    rounding ``W`` to steps of ``s / |f|``. Channels that training has all but switched off (``f`` near 0) would
    otherwise take steps many times their own size.

    Args:
        target: the ATen operator.
        arguments: its arguments behind the bias.
        norm: the layer and its batch norm, which are copied.
        quantizer: rounds the folded weight, and is set to its grid; None: it stays float.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, target: Any, arguments: tuple[Any, ...], norm: FoldedNorm, quantizer: FakeQuantizeBase | None
    ) -> None:
        super().__init__()
        self.target, self.arguments = target, arguments
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight = nn.Parameter(norm.weight.detach().clone())
        self.bias = None if norm.bias is None else nn.Parameter(norm.bias.detach().clone())
        self.gamma = nn.Parameter(norm.gamma.detach().clone())
        self.beta = nn.Parameter(norm.beta.detach().clone())
        self.register_buffer("running_mean", norm.mean.detach().clone())
        self.register_buffer("running_var", norm.var.detach().clone())
        # In a tuple: it is a submodule of the graph already, and its parameters are to be trained once.
        self._quantizer = () if quantizer is None else (quantizer,)
        self.frozen = False
        self.relative = quantizer is not None and quantizer.scheme.ch_axis == 0
        if quantizer is not None and self.relative:
            start = quantizer.qparams
            quantizer.set_qparams(replace(start, scale=start.scale / self.unit()))

    @torch.no_grad()
    def exported(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one layer."""
        factor = self._factor()
        return self.weight * _spread(factor, self.weight), self._shift(factor)

    @torch.no_grad()
    def exported_grid(self, own: QParams) -> QParams:
        """The grid of the exported weight, from that of the quantizer."""
        return replace(own, scale=own.scale * self.unit()) if self.relative else own

    @torch.no_grad()
    def unit(self) -> Tensor:
        """``|f|``, which relative scales are in units of; 1 where it is 0: (C_out,)."""
        factor = self._factor().abs()
        return torch.where(factor > _TINY, factor, torch.ones_like(factor))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, ...) -> (N, C_out, ...)."""
        factor = self._factor()
        if self.frozen or not self.training:
            result: Tensor = self.target(x, self._folded(factor), self._shift(factor), *self.arguments)
            return result
        y = self.target(x, self._unfolded(factor.detach()), self.bias, *self.arguments)
        return functional.batch_norm(
            y, self.running_mean, self.running_var, self.gamma, self.beta, True, self.momentum, self.eps
        )

    def _folded(self, factor: Tensor) -> Tensor:
        """``W f`` on its grid."""
        if not self._quantizer or not self.relative:
            weight = self.weight * _spread(factor, self.weight)
            return self._quantizer[0](weight) if self._quantizer else weight
        sign = _spread(_sign(factor), self.weight)
        return self._quantizer[0](self.weight * sign) * _spread(factor.abs(), self.weight)

    def _unfolded(self, factor: Tensor) -> Tensor:
        """``W f`` on its grid, divided by ``f``."""
        if not self._quantizer:
            return self.weight
        if self.relative:
            sign = _spread(_sign(factor), self.weight)
            return self._quantizer[0](self.weight * sign) * sign
        # A channel of gamma 0 is 0 whatever it is divided by.
        spread = _spread(torch.where(factor.abs() < _TINY, torch.ones_like(factor), factor), self.weight)
        return self._quantizer[0](self.weight * spread) / spread

    def _shift(self, factor: Tensor) -> Tensor:
        mean = self.running_mean if self.bias is None else self.running_mean - self.bias
        return self.beta - mean * factor

    def _factor(self) -> Tensor:
        return self.gamma * (self.running_var + self.eps).rsqrt()


def _sign(factor: Tensor) -> Tensor:
    return torch.where(factor < 0, -torch.ones_like(factor), torch.ones_like(factor))


def _spread(factor: Tensor, weight: Tensor) -> Tensor:
    return factor.reshape(-1, *[1] * (weight.dim() - 1))
