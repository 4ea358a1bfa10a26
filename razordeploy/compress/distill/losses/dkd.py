"""Decoupled knowledge distillation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.distill.losses.inputs import check_same_shape, class_indices
from razordeploy.compress.distill.losses.reduction import check_reduction, reduce


class DKDLoss(nn.Module):
    """KL divergence in two parts: target class against the rest, and among the other classes.

    Decoupled Knowledge Distillation (Zhao et al. 2022, arXiv 2203.08679), equation 7. Each sample has one value;
    the official code takes the mean over samples.

    Args:
        tau: temperature.
        alpha: weight of the target-class part (TCKD).
        beta: weight of the part among the others (NCKD).
        reduction: ``none`` (N,), ``sum``, ``batchmean`` or, the same here, ``mean``.
        loss_weight: factor of the result.
    """

    def __init__(
        self,
        *,
        tau: float = 4.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        reduction: str = "batchmean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.tau = tau
        self.alpha = alpha
        self.beta = beta
        self.reduction = check_reduction(reduction, ("none", "batchmean", "sum", "mean"), type(self).__name__)
        self.loss_weight = loss_weight

    def forward(self, preds_S: Tensor, preds_T: Tensor, gt_labels: Tensor | Sequence[object]) -> Tensor:
        """Logits (N, C) of both and labels (N,), or one-hot (N, C) -> scalar or (N,)."""
        name = type(self).__name__
        check_same_shape(preds_S, preds_T, name)
        target = class_indices(gt_labels, preds_S.shape[1], name)
        student, student_rest = _decouple(preds_S / self.tau, target)
        teacher, teacher_rest = _decouple(preds_T / self.tau, target)
        values = self.alpha * _divergence(student, teacher) + self.beta * _divergence(student_rest, teacher_rest)
        return self.loss_weight * self.tau**2 * reduce(values, self.reduction)


def _decouple(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities (N, 2) of target and rest, and (N, C - 1) of the other classes among themselves."""
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, target[:, None], False)
    rest = logits[others].view(len(logits), -1)
    of_target = logits.gather(1, target[:, None])
    both = torch.cat([of_target, rest.logsumexp(1, keepdim=True)], dim=1)
    return functional.log_softmax(both, dim=1), functional.log_softmax(rest, dim=1)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return functional.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
