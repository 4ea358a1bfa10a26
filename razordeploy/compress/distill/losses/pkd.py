"""Pearson distillation of feature pyramids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.distill.losses.inputs import check_same_shape
from razordeploy.errors import ModelError


class PKDLoss(nn.Module):
    """Half the mean squared difference of standardised features, which is 1 - r of each channel.

    PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient (Cao et al. 2022,
    arXiv 2207.02039), equations 5 to 7.

    Args:
        loss_weight: factor of the result.
        resize_stu: where sizes differ, bring the student to the teacher's size; False: the other way round.
    """

    def __init__(self, *, loss_weight: float = 1.0, resize_stu: bool = True) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.resize_stu = resize_stu

    def forward(self, preds_S: Tensor | Sequence[Tensor], preds_T: Tensor | Sequence[Tensor]) -> Tensor:
        """Features (N, C, H, W), or a sequence of them for each -> scalar, summed over the levels."""
        students = [preds_S] if isinstance(preds_S, Tensor) else list(preds_S)
        teachers = [preds_T] if isinstance(preds_T, Tensor) else list(preds_T)
        if len(students) != len(teachers) or not students:
            raise ModelError(f"PKDLoss: expected as many levels of both, got {len(students)} and {len(teachers)}")
        levels = [self._level(s, t) for s, t in zip(students, teachers, strict=True)]
        return self.loss_weight * torch.stack(levels).sum()

    def _level(self, student: Tensor, teacher: Tensor) -> Tensor:
        if student.shape[2:] != teacher.shape[2:]:
            if self.resize_stu:
                student = functional.interpolate(student, teacher.shape[2:], mode="bilinear")
            else:
                teacher = functional.interpolate(teacher, student.shape[2:], mode="bilinear")
        check_same_shape(student, teacher, type(self).__name__)
        return functional.mse_loss(_standardise(student), _standardise(teacher)) / 2


def _standardise(feature: Tensor) -> Tensor:
    """Zero mean and unit variance of each channel over batch and positions."""
    deviation, mean = torch.std_mean(feature, dim=(0, 2, 3), keepdim=True)
    return (feature - mean) / (deviation + 1e-6)
