"""Factor transfer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.distill.losses.inputs import check_same_shape


class FTLoss(nn.Module):
    """Mean absolute difference of the normalised factors.

    Paraphrasing Complex Network (Kim et al. 2018, arXiv 1802.04977), equation 3 with p = 1; the official weight
    is 500. Factors come from ``Paraphraser`` and ``Translator``.
    """

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Two factors (N, ...) -> scalar."""
        check_same_shape(s_feature, t_feature, type(self).__name__)
        return self.loss_weight * functional.l1_loss(_unit(s_feature), _unit(t_feature))


def _unit(factor: Tensor) -> Tensor:
    return functional.normalize(factor.flatten(1), dim=1)
