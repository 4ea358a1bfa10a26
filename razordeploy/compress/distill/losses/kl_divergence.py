"""Soft labels as Hinton et al. use them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.distill.losses.inputs import check_same_shape
from razordeploy.compress.distill.losses.reduction import check_reduction, reduce


class KLDivergence(nn.Module):
    """KL(teacher || student) of the softened class probabilities, times tau squared.

    Distilling the Knowledge in a Neural Network (Hinton et al. 2015, arXiv 1503.02531), section 2. ``batchmean`` is
    the usual form; ``mean`` divides by the number of classes too, as the code of zero-shot knowledge transfer does.

    Args:
        tau: temperature.
        reduction: ``none`` (N, C), ``batchmean``, ``sum`` or ``mean``.
        loss_weight: factor of the result; negative where a generator maximises it.
        teacher_detach: False lets the gradient through the teacher, for a generator in front of it.
    """

    def __init__(
        self, *, tau: float = 1.0, reduction: str = "batchmean", loss_weight: float = 1.0, teacher_detach: bool = True
    ) -> None:
        super().__init__()
        self.tau = tau
        self.reduction = check_reduction(reduction, ("none", "batchmean", "sum", "mean"), type(self).__name__)
        self.loss_weight = loss_weight
        self.teacher_detach = teacher_detach

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Logits (N, C, ...) of both -> scalar, or (N, C, ...) unreduced."""
        check_same_shape(preds_S, preds_T, type(self).__name__)
        teacher = preds_T.detach() if self.teacher_detach else preds_T
        values = functional.kl_div(
            functional.log_softmax(preds_S / self.tau, dim=1),
            functional.log_softmax(teacher / self.tau, dim=1),
            reduction="none",
            log_target=True,
        )
        return self.loss_weight * self.tau**2 * reduce(values, self.reduction)
