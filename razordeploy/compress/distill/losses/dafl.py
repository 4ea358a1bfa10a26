"""What makes a generated batch look real to the teacher: the three terms of DAFL's generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.distill.losses.gather import gather_batch
from razordeploy.errors import RecipeError


class OnehotLikeLoss(nn.Module):
    """Cross entropy of the teacher with its own most likely class: is it sure?

    Data-Free Learning of Student Networks (Chen et al. 2019, arXiv 1904.01186), equation 3; official weight 0.05.
    """

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, preds_T: Tensor) -> Tensor:
        """Logits (N, C) -> scalar."""
        return self.loss_weight * functional.cross_entropy(preds_T, preds_T.detach().argmax(1))


class InformationEntropyLoss(nn.Module):
    """Negative entropy, base 10, of the mean class probabilities: are all classes there?

    Data-Free Learning of Student Networks (Chen et al. 2019, arXiv 1904.01186), equation 5; official weight 5.

    Args:
        loss_weight: factor of the result.
        gather: count the batches of all processes as one.
    """

    def __init__(self, *, loss_weight: float = 1.0, gather: bool = True) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.gather = gather

    def forward(self, preds_T: Tensor) -> Tensor:
        """Logits (N, C) -> scalar, least at -log10(C)."""
        logits = gather_batch(preds_T) if self.gather else preds_T
        probability = functional.softmax(logits, dim=1).mean(0)
        # A class that underflows to zero counts as zero, and not as NaN.
        return self.loss_weight * (probability * probability.clamp(min=torch.finfo(logits.dtype).tiny).log10()).sum()


class ActivationLoss(nn.Module):
    """Negative size of the teacher's features: do its filters answer?

    Data-Free Learning of Student Networks (Chen et al. 2019, arXiv 1904.01186), equation 4; official weight 0.01.

    Args:
        loss_weight: factor of the result.
        norm_type: ``abs``, the mean absolute value, as in the official code; ``fro``, the norm of all values.
    """

    def __init__(self, *, loss_weight: float = 1.0, norm_type: str = "abs") -> None:
        super().__init__()
        self.loss_weight = loss_weight
        if norm_type not in ("abs", "fro"):
            raise RecipeError(f"{type(self).__name__}: unknown norm_type {norm_type!r}", hint="known: abs, fro")
        self.norm_type = norm_type

    def forward(self, feat_T: Tensor) -> Tensor:
        """Features (N, ...) -> scalar."""
        size = feat_T.abs().mean() if self.norm_type == "abs" else torch.linalg.vector_norm(feat_T)
        return -self.loss_weight * size
