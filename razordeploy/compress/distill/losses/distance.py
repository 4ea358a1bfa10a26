"""Plain distances between features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.distill.losses.inputs import check_same_shape
from razordeploy.compress.distill.losses.reduction import check_reduction, reduce


class L1Loss(nn.Module):
    """Absolute difference.

    Args:
        reduction: ``none``, ``sum``, ``mean`` over all values, or ``batchmean`` (sum / N).
        loss_weight: factor of the result.
    """

    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None:
        super().__init__()
        self.reduction = check_reduction(reduction, ("none", "batchmean", "sum", "mean"), type(self).__name__)
        self.loss_weight = loss_weight

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Two features (N, ...) -> scalar, or the features' shape unreduced."""
        check_same_shape(s_feature, t_feature, type(self).__name__)
        return self.loss_weight * reduce((s_feature - t_feature).abs(), self.reduction)


class L2Loss(nn.Module):
    """Squared Euclidean distance, summed and divided by N; of unit vectors when ``normalize`` is True.

    FitNets: Hints for Thin Deep Nets (Romero et al. 2015, arXiv 1412.6550), equation 3.

    Args:
        loss_weight: factor of the result.
        normalize: scale each sample's feature to length ``mult`` first.
        mult: that length.
        div_element: divide by the number of values instead of by N.
        dist: the distance itself, not squared and not divided.
    """

    def __init__(
        self,
        *,
        loss_weight: float = 1.0,
        normalize: bool = True,
        mult: float = 1.0,
        div_element: bool = False,
        dist: bool = False,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.normalize = normalize
        self.mult = mult
        self.div_element = div_element
        self.dist = dist

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Two features (N, ...) -> scalar."""
        check_same_shape(s_feature, t_feature, type(self).__name__)
        difference = self._scaled(s_feature) - self._scaled(t_feature)
        if self.dist:
            # Of a norm, unlike of a square root, the gradient at zero is zero.
            return self.loss_weight * torch.linalg.vector_norm(difference)
        loss = difference.square().sum()
        return self.loss_weight * loss / (difference.numel() if self.div_element else len(difference))

    def _scaled(self, feature: Tensor) -> Tensor:
        return functional.normalize(feature.flatten(1), dim=1) * self.mult if self.normalize else feature
