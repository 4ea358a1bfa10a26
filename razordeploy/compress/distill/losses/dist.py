"""Distillation from a stronger teacher."""

from __future__ import annotations

from torch import Tensor, nn

from razordeploy.compress.distill.losses.inputs import check_same_shape


class DISTLoss(nn.Module):
    """1 - Pearson correlation of the class probabilities, within each sample and, per class, across the batch.

    Knowledge Distillation from A Stronger Teacher (Huang et al. 2022, arXiv 2205.10536), equations 9 and 10. A batch
    of one has no relation across samples; that term is then 1.

    Args:
        inter_loss_weight: of the relation between classes (the paper's beta).
        intra_loss_weight: of the relation within a class (the paper's gamma).
        tau: temperature; both terms are multiplied with its square.
        loss_weight: factor of the result.
        teacher_detach: False lets the gradient through the teacher.
    """

    def __init__(
        self,
        *,
        inter_loss_weight: float = 1.0,
        intra_loss_weight: float = 1.0,
        tau: float = 1.0,
        loss_weight: float = 1.0,
        teacher_detach: bool = True,
    ) -> None:
        super().__init__()
        self.inter_loss_weight = inter_loss_weight
        self.intra_loss_weight = intra_loss_weight
        self.tau = tau
        self.loss_weight = loss_weight
        self.teacher_detach = teacher_detach

    def forward(self, logits_S: Tensor, logits_T: Tensor) -> Tensor:
        """Logits (N, C) of both -> scalar."""
        check_same_shape(logits_S, logits_T, type(self).__name__)
        student = (logits_S / self.tau).softmax(dim=1)
        teacher = ((logits_T.detach() if self.teacher_detach else logits_T) / self.tau).softmax(dim=1)
        inter = 1 - correlation(student, teacher).mean()
        intra = 1 - correlation(student.t(), teacher.t()).mean()
        loss = self.inter_loss_weight * inter + self.intra_loss_weight * intra
        return self.loss_weight * self.tau**2 * loss


def correlation(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """Pearson correlation of each row of ``a`` with that of ``b``: (N, C) -> (N,)."""
    a = a - a.mean(1, keepdim=True)
    b = b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + eps)
