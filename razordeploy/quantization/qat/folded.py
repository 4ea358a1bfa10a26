"""A layer and its batch norm, trained as the one layer that they become."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.capture.batchnorm import FoldedNorm

_TINY = 1e-12


class FoldedLayer(nn.Module):
    """A convolution or linear layer whose weight is folded before it is rounded (Krishnamoorthi 2018, section 3.2.2).

    While the norm is live, the running statistics fold the weight, so that the grid sees what the engine will store;
    the result is scaled back and normalised by the batch. Frozen, and in evaluation, it computes ``y = W' x + b'``
    with the folded weight and bias, which is what is exported.

    Args:
        target: the ATen operator.
        arguments: its arguments behind the bias.
        norm: the layer and its batch norm, which are copied.
        quantizer: rounds the folded weight; None: it stays float.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, target: Any, arguments: tuple[Any, ...], norm: FoldedNorm, quantizer: nn.Module | None) -> None:
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

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one layer."""
        factor = self._factor()
        mean = self.running_mean if self.bias is None else self.running_mean - self.bias
        return self.weight * _spread(factor, self.weight), self.beta - mean * factor

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, ...) -> (N, C_out, ...)."""
        weight, bias = self.folded()
        for quantizer in self._quantizer:
            weight = quantizer(weight)
        if self.frozen or not self.training:
            result: Tensor = self.target(x, weight, bias, *self.arguments)
            return result
        y = self.target(x, weight, None, *self.arguments)
        factor = self._factor()
        # A channel of gamma 0 is 0 whatever it is divided by.
        factor = torch.where(factor.abs() < _TINY, torch.ones_like(factor), factor)
        y = y / factor.reshape(1, -1, *[1] * (y.dim() - 2))
        if self.bias is not None:
            y = y + self.bias.reshape(1, -1, *[1] * (y.dim() - 2))
        return functional.batch_norm(
            y, self.running_mean, self.running_var, self.gamma, self.beta, True, self.momentum, self.eps
        )

    def _factor(self) -> Tensor:
        return self.gamma * (self.running_var + self.eps).rsqrt()


def _spread(factor: Tensor, weight: Tensor) -> Tensor:
    return factor.reshape(-1, *[1] * (weight.dim() - 1))
