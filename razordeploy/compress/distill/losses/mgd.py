"""Masked generative distillation."""

from __future__ import annotations

from torch import Tensor, nn

from razordeploy.compress.distill.losses.inputs import check_same_shape


class MGDLoss(nn.Module):
    """Squared difference of the generated feature and the teacher's, summed, divided by N.

    Masked Generative Distillation (Yang et al. 2022, arXiv 2205.01529), equation 4; ``MGDConnector`` generates.

    Args:
        alpha_mgd: factor of the result; official 2e-5 for detection, 7e-5 for classification.
    """

    def __init__(self, *, alpha_mgd: float = 0.00002) -> None:
        super().__init__()
        self.alpha_mgd = alpha_mgd

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Two features (N, C, H, W) -> scalar."""
        check_same_shape(preds_S, preds_T, type(self).__name__)
        return self.alpha_mgd * (preds_S - preds_T).square().sum() / len(preds_S)
