"""Feature-based distillation of detectors with attention and non-local relations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from razordeploy.compress.distill.losses.inputs import check_same_shape


class FBKDLoss(nn.Module):
    """Attention-guided feature distance, pooled channel and position distances, and distance of non-local relations.

    Improve Object Detection with Feature-based Knowledge Distillation (Zhang and Ma 2021, OpenReview uKhGRvM8QNH),
    equations 2 to 5.

    Args:
        mask_l2_weight: of the feature distance under the mean spatial attention mask.
        channel_weight: of the distance of the features pooled over positions.
        spatial_weight: of the distance of the features pooled over channels.
        nonlocal_weight: of the distance of the non-local features.
        loss_weight: factor of the result.
    """

    def __init__(
        self,
        *,
        mask_l2_weight: float = 7e-5,
        channel_weight: float = 4e-3,
        spatial_weight: float = 4e-3,
        nonlocal_weight: float = 7e-5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.mask_l2_weight = mask_l2_weight
        self.channel_weight = channel_weight
        self.spatial_weight = spatial_weight
        self.nonlocal_weight = nonlocal_weight
        self.loss_weight = loss_weight

    def forward(self, s_input: tuple[Tensor, ...], t_input: tuple[Tensor, ...]) -> Tensor:
        """What ``FBKDStudentConnector`` and ``FBKDTeacherConnector`` return -> scalar."""
        s_spatial_mask, _, s_channel_pool, s_spatial_pool, s_relation, s_feature = s_input
        t_spatial_mask, _, t_spatial_pool, t_relation, t_feature = t_input
        check_same_shape(s_feature, t_feature, type(self).__name__)
        mask = ((t_spatial_mask + s_spatial_mask) / 2).detach()
        loss = (
            self.mask_l2_weight * _norm((t_feature - s_feature) * mask.sqrt())
            + self.channel_weight * _norm(t_feature.mean((2, 3)) - s_channel_pool)
            + self.spatial_weight * _norm(t_spatial_pool - s_spatial_pool)
            + self.nonlocal_weight * _norm(t_relation - s_relation)
        )
        return self.loss_weight * loss


def _norm(difference: Tensor) -> Tensor:
    """Euclidean norm of all values; its gradient at zero is zero, not NaN."""
    return torch.linalg.vector_norm(difference)
