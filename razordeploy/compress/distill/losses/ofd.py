"""Overhaul of feature distillation."""

from __future__ import annotations

from torch import Tensor, nn

from razordeploy.compress.distill.losses.inputs import check_same_shape


class OFDLoss(nn.Module):
    """Partial L2: nothing is asked where the teacher is not positive and the student lies below it.

    A Comprehensive Overhaul of Feature Distillation (Heo et al. 2019, arXiv 1904.01866), equation 3. The teacher's
    feature has been through the margin ReLU of ``OFDTeacherConnector``. The official weight of layer i of n is
    1 / 2^(n - i - 1).

    Args:
        loss_weight: factor of the result.
        mul_factor: the sum over a batch is divided by N and by this.
    """

    def __init__(self, *, loss_weight: float = 1.0, mul_factor: float = 1000.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.mul_factor = mul_factor

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Two features before ReLU (N, C, H, W) -> scalar."""
        check_same_shape(s_feature, t_feature, type(self).__name__)
        counted = (s_feature > t_feature) | (t_feature > 0)
        loss = ((s_feature - t_feature).square() * counted).sum()
        return self.loss_weight * loss / len(s_feature) / self.mul_factor
