"""The teacher's transform of overhaul feature distillation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.compress.distill.connectors.base import BaseConnector
from razordeploy.errors import ModelError


class OFDTeacherConnector(BaseConnector):
    """Margin ReLU: what lies below a channel's margin counts as the margin.

    A Comprehensive Overhaul of Feature Distillation (Heo et al. 2019, arXiv 1904.01866), equations 1 and 2. The
    margins come from the batch norm in front of the teacher's ReLU; ``OFDDistiller`` sets them.

    Args:
        norm: name of that batch norm in the teacher; None: the module whose output is recorded.
        init_cfg: mmengine's initialisation config.
    """

    margin: Tensor

    def __init__(self, norm: str | None = None, init_cfg: Mapping[str, Any] | None = None) -> None:
        super().__init__(init_cfg)
        self.norm = norm
        self.register_buffer("margin", torch.zeros(0))

    def init_margin(self, margin: Tensor) -> None:
        """Take the margins, (1, C, 1, 1)."""
        self.margin = margin.to(self.margin.device)

    def forward_train(self, feature: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape, without a gradient."""
        if not self.margin.numel():
            raise ModelError(
                "OFDTeacherConnector: its margin is not set", hint="use distiller=dict(type='OFDDistiller')"
            )
        return torch.maximum(feature.detach(), self.margin.to(feature.dtype))


def margin_of(norm: nn.Module) -> Tensor:
    """Expected value of each channel of a batch norm's output where it is negative, (1, C, 1, 1).

    The output is taken for a Gaussian with the norm's weight as deviation and its bias as mean; channels that are
    negative in less than 0.1 % of cases get minus three deviations, as in the official code.

    Raises:
        ModelError: ``norm`` is no batch norm with weight and bias.
    """
    if not isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm) or norm.weight is None:
        raise ModelError(
            f"overhaul feature distillation: expected a batch norm with weight and bias, got {type(norm).__name__}",
            hint="record the batch norms in front of the teacher's ReLUs",
        )
    mean = norm.bias.detach().double()
    # A deviation of zero, a channel that is constant, would divide by it.
    deviation = norm.weight.detach().double().abs().clamp(min=torch.finfo(torch.float64).tiny)
    ratio = mean / deviation
    negative = torch.special.ndtr(-ratio)
    expected = mean - deviation * torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi) / negative
    margin = torch.where(negative > 0.001, expected, -3 * deviation)
    return margin.to(norm.weight.dtype)[None, :, None, None]
