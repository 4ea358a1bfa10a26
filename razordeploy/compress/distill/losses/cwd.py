"""Channel-wise distillation."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.distill.losses.inputs import check_same_shape


class ChannelWiseDivergence(nn.Module):
    """KL divergence of the softmax over positions, per channel, times tau squared, divided by N and C.

    Channel-wise Knowledge Distillation for Dense Prediction (Shu et al. 2021, arXiv 2011.13256), equation 4.

    Args:
        tau: temperature.
        loss_weight: factor of the result.
    """

    def __init__(self, *, tau: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.tau = tau
        self.loss_weight = loss_weight

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Two maps (N, C, H, W) -> scalar."""
        check_same_shape(preds_S, preds_T, type(self).__name__)
        student = functional.log_softmax(preds_S.flatten(2) / self.tau, dim=2)
        teacher = functional.log_softmax(preds_T.flatten(2) / self.tau, dim=2)
        loss = functional.kl_div(student, teacher, reduction="sum", log_target=True)
        return self.loss_weight * self.tau**2 * loss / (preds_S.shape[0] * preds_S.shape[1])
