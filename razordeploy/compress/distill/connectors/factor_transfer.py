"""Factors of teacher and student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from razordeploy.compress.distill.connectors.base import BaseConnector
from razordeploy.errors import RecipeError

Self = TypeVar("Self", bound="Paraphraser")


class Paraphraser(BaseConnector):
    """Autoencoder of the teacher's feature: trained by itself first, then its code is the teacher's factor.

    Paraphrasing Complex Network: Network Compression via Factor Transfer (Kim et al. 2018, arXiv 1802.04977),
    section 3.1.

    Args:
        in_channel: channels of the teacher's feature.
        out_channel: channels of the factor; the paper takes in_channel times 0.5 to 4.
        phase: ``pretrain`` reconstructs the feature; ``train`` gives the factor, in eval mode and without gradients.
        use_bn: batch norm after each convolution.
        pretrain_criterion: loss of the reconstruction when it is trained in the same run as the student, such as
            ``dict(type='L1Loss')``; None: the recipe does it in a run of its own.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        in_channel: int,
        out_channel: int,
        phase: str = "pretrain",
        use_bn: bool = False,
        pretrain_criterion: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.encoder = _coder(nn.Conv2d, in_channel, [in_channel, out_channel, out_channel], use_bn)
        self.decoder = _coder(nn.ConvTranspose2d, out_channel, [out_channel, in_channel, in_channel], use_bn)
        self.pretrain_criterion = pretrain_criterion
        self.set_phase(phase)

    def set_phase(self, phase: str) -> None:
        """Go to ``pretrain`` or ``train``.

        Raises:
            RecipeError: another phase.
        """
        if phase not in ("pretrain", "train"):
            raise RecipeError(f"Paraphraser: expected phase 'pretrain' or 'train', got {phase!r}")
        self.phase = phase
        self.requires_grad_(phase == "pretrain")
        self.train(self.training)

    def train(self: Self, mode: bool = True) -> Self:
        """Batch norm keeps its statistics once the factor is what the student learns from."""
        return super().train(mode and self.phase == "pretrain")

    def forward(self, feature: Tensor) -> Tensor:
        """(N, in_channel, H, W) -> reconstruction of that shape, or factor (N, out_channel, H, W)."""
        return self.forward_train(feature) if self.phase == "train" else self.forward_pretrain(feature)

    def forward_train(self, feature: Tensor) -> Tensor:
        """The factor."""
        with torch.no_grad():
            return self.encoder(feature)

    def forward_pretrain(self, feature: Tensor) -> Tensor:
        """The reconstruction."""
        return self.decoder(self.encoder(feature))


class Translator(BaseConnector):
    """Brings the student's feature into the shape of the teacher's factor.

    Factor Transfer (arXiv 1802.04977), section 3.2.

    Args:
        in_channel: channels of the student's feature.
        out_channel: channels of the factor.
        use_bn: batch norm after each convolution.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self, in_channel: int, out_channel: int, use_bn: bool = True, init_cfg: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.encoder = _coder(nn.Conv2d, in_channel, [in_channel, out_channel, out_channel], use_bn)

    def forward_train(self, feature: Tensor) -> Tensor:
        """(N, in_channel, H, W) -> factor (N, out_channel, H, W)."""
        return self.encoder(feature)


def _coder(conv: type[nn.Module], inputs: int, widths: list[int], use_bn: bool) -> nn.Sequential:
    """Three 3x3 convolutions, each with a leaky ReLU of slope 0.1, at the places where the predecessor has them."""
    layers: list[nn.Module] = []
    for before, after in zip([inputs, *widths[:-1]], widths, strict=True):
        norm = nn.BatchNorm2d(after) if use_bn else nn.Identity()
        layers += [conv(before, after, 3, 1, 1), norm, nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)
