"""Generation of the teacher's feature from a masked one of the student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.compress.distill.connectors.base import BaseConnector
from razordeploy.errors import RecipeError


class MGDConnector(BaseConnector):
    """Aligns channels, masks at random, generates by two 3x3 convolutions.

    Masked Generative Distillation (Yang et al. 2022, arXiv 2205.01529), equations 1 to 3.

    Args:
        student_channels: channels of the student's feature.
        teacher_channels: channels of the teacher's.
        lambda_mgd: share that is masked; official 0.65 for detection (positions), 0.15 for classification (channels).
        mask_on_channel: mask channels instead of positions.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        lambda_mgd: float = 0.65,
        mask_on_channel: bool = False,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not 0 <= lambda_mgd <= 1:
            raise RecipeError(f"MGDConnector: expected lambda_mgd from 0 to 1, got {lambda_mgd}")
        self.lambda_mgd = lambda_mgd
        self.mask_on_channel = mask_on_channel
        same = student_channels == teacher_channels
        self.align = None if same else nn.Conv2d(student_channels, teacher_channels, 1)
        self.generation = nn.Sequential(
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
        )

    def forward_train(self, feature: Tensor) -> Tensor:
        """(N, student_channels, H, W) -> (N, teacher_channels, H, W)."""
        if self.align is not None:
            feature = self.align(feature)
        count, channels, height, width = feature.shape
        shape = (count, channels, 1, 1) if self.mask_on_channel else (count, 1, height, width)
        kept = torch.rand(shape, device=feature.device) <= 1 - self.lambda_mgd
        return self.generation(feature * kept)
