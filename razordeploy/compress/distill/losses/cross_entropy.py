"""Cross entropy with what the teacher says: its probabilities, or its class alone."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.distill.losses.inputs import check_same_shape
from razordeploy.compress.distill.losses.reduction import check_reduction
from razordeploy.errors import ModelError


class CrossEntropyLoss(nn.Module):
    """Cross entropy with the teacher's most likely class: hard-label distillation.

    Training data-efficient image transformers (Touvron et al. 2021, arXiv 2012.12877), equation 3.
    """

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Logits (N, C) of both -> mean over N."""
        check_same_shape(preds_S, preds_T, type(self).__name__)
        return self.loss_weight * functional.cross_entropy(preds_S, preds_T.detach().argmax(dim=1))


class KDSoftCELoss(nn.Module):
    """Cross entropy of the student with the teacher's softened probabilities.

    Differs from ``KLDivergence`` by the teacher's entropy, so that it is not zero where both agree; its gradient is
    the same.

    Args:
        tau: temperature.
        reduction: ``none`` (N,), ``sum``, or ``mean`` over samples.
        mult_tem_square: multiply with tau squared, which keeps the gradient's size whatever tau is.
        loss_weight: factor of the result.
    """

    def __init__(
        self, *, tau: float = 1.0, reduction: str = "mean", mult_tem_square: bool = True, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.tau = tau
        self.reduction = check_reduction(reduction, ("none", "sum", "mean"), type(self).__name__)
        self.mult_tem_square = mult_tem_square
        self.loss_weight = loss_weight

    def forward(
        self,
        preds_S: Tensor,
        preds_T: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Logits (N, C) of both -> scalar or (N,).

        Args:
            preds_S: the student's.
            preds_T: the teacher's.
            weight: factor of each sample (N,).
            avg_factor: divide the sum by this instead of by N; only with ``mean``.
            reduction_override: takes the place of the one chosen in the recipe.
        """
        name = type(self).__name__
        check_same_shape(preds_S, preds_T, name)
        reduction = self.reduction
        if reduction_override is not None:
            reduction = check_reduction(reduction_override, ("none", "sum", "mean"), name)
        if avg_factor is not None and reduction != "mean":
            raise ModelError(f"{name}: avg_factor goes with the reduction 'mean', got {reduction!r}")
        soft = functional.softmax(preds_T.detach() / self.tau, dim=-1)
        values = -(soft * functional.log_softmax(preds_S / self.tau, dim=-1)).sum(-1)
        if weight is not None:
            values = values * weight
        if reduction == "mean":
            values = values.mean() if avg_factor is None else values.sum() / avg_factor
        elif reduction == "sum":
            values = values.sum()
        return self.loss_weight * (self.tau**2 if self.mult_tem_square else 1.0) * values
