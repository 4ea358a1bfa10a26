"""Weighted soft labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.distill.losses.inputs import check_same_shape, class_scores
from razordeploy.errors import ModelError


class WSLD(nn.Module):
    """Soft-label cross entropy, less for samples that the student knows better than the teacher.

    Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective (Zhou et al. 2021,
    arXiv 2102.00650), equation 8. The official values are tau=2, loss_weight=2.5.

    Args:
        tau: temperature.
        loss_weight: factor of the result.
        num_classes: checked against the logits when given.
    """

    def __init__(self, *, tau: float = 1.0, loss_weight: float = 1.0, num_classes: int | None = None) -> None:
        super().__init__()
        self.tau = tau
        self.loss_weight = loss_weight
        self.num_classes = num_classes

    def forward(self, student: Tensor, teacher: Tensor, gt_labels: Tensor | Sequence[object]) -> Tensor:
        """Logits (N, C) of both and labels (N,) or (N, C) -> mean over N."""
        name = type(self).__name__
        check_same_shape(student, teacher, name)
        if self.num_classes is not None and student.shape[1] != self.num_classes:
            raise ModelError(f"{name}: expected logits of {self.num_classes} classes, got {student.shape[1]}")
        soft = functional.softmax(teacher / self.tau, dim=1)
        values = -(soft * functional.log_softmax(student / self.tau, dim=1)).sum(1)
        with torch.no_grad():
            truth = class_scores(gt_labels, student, name)
            of_student = -(truth * functional.log_softmax(student, dim=1)).sum(1)
            of_teacher = -(truth * functional.log_softmax(teacher, dim=1)).sum(1)
            weight = 1 - torch.exp(-(of_student / (of_teacher + 1e-7)).clamp(min=0))
        return self.loss_weight * self.tau**2 * (weight * values).mean()
