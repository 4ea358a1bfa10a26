"""Activation boundaries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from razordeploy.compress.distill.losses.inputs import check_same_shape


class ABLoss(nn.Module):
    """Pushes each student neuron to the side of zero that the teacher's is on, by a margin.

    Knowledge Transfer via Distillation of Activation Boundaries (Heo et al. 2019, arXiv 1811.03233), equation 7.
    Features are those before the ReLU. As in the official code the sum is divided by the batch and multiplied with
    3 / 1000; the official weights of the last layers are 1, 1/2, 1/4, 1/8 from the deepest one on.

    Args:
        loss_weight: factor of the result.
        margin: how far from zero a neuron has to be.
    """

    def __init__(self, *, loss_weight: float = 1.0, margin: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.margin = margin

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Two features before ReLU (N, ...) -> scalar."""
        check_same_shape(s_feature, t_feature, type(self).__name__)
        side = torch.where(t_feature > 0, 1.0, -1.0)
        short = (self.margin - side * s_feature).clamp(min=0)
        return self.loss_weight * short.square().sum() / len(s_feature) / 1000 * 3
