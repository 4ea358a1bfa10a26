"""Relational knowledge distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.errors import ModelError


class DistanceWiseRKD(nn.Module):
    """Smooth L1 between the pairwise distances within a batch, each divided by its mean.

    Relational Knowledge Distillation (Park et al. 2019, arXiv 1904.05068), equations 6 to 8. A batch of one has no
    distance and gives zero. Features of student and teacher may differ in length.

    Args:
        loss_weight: factor of the result; official 25.
        with_l2_norm: scale every feature to length 1 first, which the official code does not.
    """

    def __init__(self, *, loss_weight: float = 25.0, with_l2_norm: bool = False) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.with_l2_norm = with_l2_norm

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Features (N, ...) of both -> scalar."""
        student, teacher = _rows(preds_S, preds_T, self.with_l2_norm, type(self).__name__)
        loss = functional.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))
        return self.loss_weight * loss


class AngleWiseRKD(nn.Module):
    """Smooth L1 between the cosines of the angles that every three samples of a batch form.

    Relational Knowledge Distillation (Park et al. 2019, arXiv 1904.05068), equations 9 and 10. Needs memory for
    N^2 features and N^3 cosines.

    Args:
        loss_weight: factor of the result; official 50.
        with_l2_norm: scale every feature to length 1 first, which the official code does not.
    """

    def __init__(self, *, loss_weight: float = 50.0, with_l2_norm: bool = False) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.with_l2_norm = with_l2_norm

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Features (N, ...) of both -> scalar."""
        student, teacher = _rows(preds_S, preds_T, self.with_l2_norm, type(self).__name__)
        return self.loss_weight * functional.smooth_l1_loss(_cosines(student), _cosines(teacher))


def _rows(student: Tensor, teacher: Tensor, with_l2_norm: bool, loss: str) -> tuple[Tensor, Tensor]:
    if len(student) != len(teacher):
        raise ModelError(f"{loss}: expected features of one batch, got {len(student)} and {len(teacher)} samples")
    s, t = student.flatten(1), teacher.flatten(1)
    return (functional.normalize(s, dim=1), functional.normalize(t, dim=1)) if with_l2_norm else (s, t)


def _relative_distances(rows: Tensor) -> Tensor:
    """(N, C) -> Euclidean distances (N, N) over the mean of those above zero."""
    squares = rows.square().sum(1)
    distances = (squares[:, None] + squares[None] - 2 * rows @ rows.t()).clamp(min=1e-12).sqrt()
    distances = distances * (1 - torch.eye(len(rows), dtype=rows.dtype, device=rows.device))
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    return distances / torch.where(mean > 0, mean, torch.ones_like(mean))


def _cosines(rows: Tensor) -> Tensor:
    """(N, C) -> (N, N, N): at sample i, between the directions to j and to k."""
    directions = functional.normalize(rows[None] - rows[:, None], dim=2)
    return directions @ directions.transpose(1, 2)
