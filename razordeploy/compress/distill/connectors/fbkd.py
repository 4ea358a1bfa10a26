"""Attention masks, pooled features and non-local relations of detectors' features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.compress.distill.connectors.base import BaseConnector
from razordeploy.compress.distill.connectors.layers import ConvBlock
from razordeploy.errors import RecipeError, nearest

_MODES = ("dot_product", "embedded_gaussian", "gaussian")
_BN = {"type": "BN"}


class NonLocal(nn.Module):
    """Non-local block with a residual connection.

    Non-local Neural Networks (Wang et al. 2018, arXiv 1711.07971), equations 1 to 6.

    Args:
        in_channels: channels of the feature.
        reduction: channels of the embedding are fewer by this factor.
        conv_cfg: ``dict(type='Conv2d')``.
        norm_cfg: norm after the last convolution.
        mode: pairwise function.
        sub_sample: pool keys and values by ``maxpool_stride``.
        maxpool_stride: size and stride of that max pool.
        zeros_init: start as the identity.
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = _BN,
        mode: str = "dot_product",
        sub_sample: bool = False,
        maxpool_stride: int = 2,
        zeros_init: bool = True,
    ) -> None:
        super().__init__()
        if mode not in _MODES:
            raise RecipeError(f"unknown mode {mode!r} of the non-local block", hint=nearest(mode, _MODES))
        inner = max(in_channels // reduction, 1)
        self.mode = mode
        self.g = ConvBlock(in_channels, inner, conv_cfg=conv_cfg)
        embed = mode != "gaussian"
        self.theta = ConvBlock(in_channels, inner, conv_cfg=conv_cfg) if embed else None
        self.phi = ConvBlock(in_channels, inner, conv_cfg=conv_cfg) if embed else None
        self.conv_out = ConvBlock(inner, in_channels, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        self.pool = nn.MaxPool2d(maxpool_stride) if sub_sample else None
        if zeros_init:
            last = self.conv_out.bn if self.conv_out.bn is not None else self.conv_out.conv
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        query = x if self.theta is None else self.theta(x)
        key, value = x if self.phi is None else self.phi(x), self.g(x)
        if self.pool is not None:
            key, value = self.pool(key), self.pool(value)
        affinity = query.flatten(2).transpose(1, 2) @ key.flatten(2)
        if self.mode == "dot_product":
            affinity = affinity / affinity.shape[-1]
        else:
            scale = query.shape[1] ** -0.5 if self.mode == "embedded_gaussian" else 1.0
            affinity = (affinity * scale).softmax(-1)
        mixed = (affinity @ value.flatten(2).transpose(1, 2)).transpose(1, 2)
        return x + self.conv_out(mixed.unflatten(2, x.shape[2:]))


class FBKDStudentConnector(BaseConnector):
    """The student's side of ``FBKDLoss``: masks, and adapted pools, relations and features.

    Improve Object Detection with Feature-based Knowledge Distillation (Zhang and Ma 2021, OpenReview uKhGRvM8QNH),
    section 3.

    Args:
        in_channels: channels of the feature, the same in the teacher.
        reduction: of the non-local block, like the six that follow; see ``NonLocal``.
        conv_cfg: see there.
        norm_cfg: see there.
        mode: see there.
        sub_sample: see there.
        maxpool_stride: see there.
        zeros_init: see there.
        spatial_T: temperature of the spatial mask.
        channel_T: temperature of the channel mask.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = _BN,
        mode: str = "dot_product",
        sub_sample: bool = False,
        maxpool_stride: int = 2,
        zeros_init: bool = True,
        spatial_T: float = 0.5,
        channel_T: float = 0.5,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.channel_wise_adaptation = nn.Linear(in_channels, in_channels)
        self.spatial_wise_adaptation = nn.Conv2d(1, 1, 3, padding=1)
        self.adaptation_layers = nn.Conv2d(in_channels, in_channels, 1)
        self.student_non_local = NonLocal(
            in_channels, reduction, conv_cfg, norm_cfg, mode, sub_sample, maxpool_stride, zeros_init
        )
        self.non_local_adaptation = nn.Conv2d(in_channels, in_channels, 1)
        self.spatial_T = spatial_T
        self.channel_T = channel_T

    def forward_train(self, feature: Tensor) -> tuple[Tensor, ...]:
        """(N, C, H, W) -> masks (N, 1, H, W) and (N, C, 1, 1), pools (N, C) and (N, 1, H, W), relation, feature."""
        return (
            spatial_mask(feature, self.spatial_T),
            channel_mask(feature, self.channel_T),
            self.channel_wise_adaptation(feature.mean((2, 3))),
            self.spatial_wise_adaptation(feature.mean(1, keepdim=True)),
            self.non_local_adaptation(self.student_non_local(feature)),
            self.adaptation_layers(feature),
        )


class FBKDTeacherConnector(BaseConnector):
    """The teacher's side of ``FBKDLoss``; its non-local block is trained with the student.

    Args:
        in_channels: channels of the feature.
        reduction: of the non-local block, like the six that follow; see ``NonLocal``.
        conv_cfg: see there.
        norm_cfg: see there.
        mode: see there.
        sub_sample: see there.
        maxpool_stride: see there.
        zeros_init: see there.
        spatial_T: temperature of the spatial mask.
        channel_T: temperature of the channel mask.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = _BN,
        mode: str = "dot_product",
        sub_sample: bool = False,
        maxpool_stride: int = 2,
        zeros_init: bool = True,
        spatial_T: float = 0.5,
        channel_T: float = 0.5,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.teacher_non_local = NonLocal(
            in_channels, reduction, conv_cfg, norm_cfg, mode, sub_sample, maxpool_stride, zeros_init
        )
        self.spatial_T = spatial_T
        self.channel_T = channel_T

    def forward_train(self, feature: Tensor) -> tuple[Tensor, ...]:
        """(N, C, H, W) -> masks (N, 1, H, W) and (N, C, 1, 1), pool (N, 1, H, W), relation, feature."""
        return (
            spatial_mask(feature, self.spatial_T),
            channel_mask(feature, self.channel_T),
            feature.mean(1, keepdim=True),
            self.teacher_non_local(feature),
            feature,
        )


def spatial_mask(feature: Tensor, temperature: float) -> Tensor:
    """(N, C, H, W) -> (N, 1, H, W): softmax over positions of the mean magnitude, times H W."""
    mean = feature.abs().mean(1, keepdim=True)
    weight = torch.softmax(mean.flatten(1) / temperature, dim=1) * mean[0].numel()
    return weight.view_as(mean)


def channel_mask(feature: Tensor, temperature: float) -> Tensor:
    """(N, C, H, W) -> (N, C, 1, 1): softmax over channels of the mean magnitude, times C."""
    mean = feature.abs().mean((2, 3), keepdim=True)
    weight = torch.softmax(mean.flatten(1) / temperature, dim=1) * feature.shape[1]
    return weight.view_as(mean)
