"""Attention transfer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from razordeploy.errors import ModelError


class ATLoss(nn.Module):
    """Mean squared difference of the normalised spatial attention maps.

    Paying More Attention to Attention (Zagoruyko and Komodakis 2017, arXiv 1612.03928), equation 2 with p = 2; like
    the official code it takes the mean where the paper takes the norm. Channels may differ.
    """

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Features (N, C_s, H, W) and (N, C_t, H, W) -> scalar."""
        if s_feature.shape[:1] + s_feature.shape[2:] != t_feature.shape[:1] + t_feature.shape[2:]:
            raise ModelError(
                f"ATLoss: expected features of one batch and size, got student {tuple(s_feature.shape)} and teacher "
                f"{tuple(t_feature.shape)}",
                hint="put a connector on the student: dict(type='TorchFunctionalConnector', "
                f"function_name='interpolate', func_args=dict(size={tuple(t_feature.shape[2:])}))",
            )
        return self.loss_weight * (attention(s_feature) - attention(t_feature)).square().mean()


def attention(feature: Tensor) -> Tensor:
    """(N, C, H, W) -> mean of squares over channels, flattened to (N, H * W) of length 1."""
    return functional.normalize(feature.square().mean(1).flatten(1), dim=1)
