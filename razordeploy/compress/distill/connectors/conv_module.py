"""A convolution with norm and activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from razordeploy.compress.distill.connectors.base import BaseConnector
from razordeploy.compress.distill.connectors.layers import ConvBlock, build_norm

_RELU = {"type": "ReLU"}


class ConvModuleConnector(BaseConnector):
    """Adapts channels (and, with a stride, size) by a convolution, a norm and an activation; 1x1 and ReLU by default.

    FitNets: Hints for Thin Deep Nets (Romero et al. 2015, arXiv 1412.6550), the regressor of section 2.2.

    Args:
        in_channel: channels of the feature.
        out_channel: channels to compare with.
        kernel_size: as for ``nn.Conv2d``, like the six that follow.
        stride: see there.
        padding: see there.
        dilation: see there.
        groups: see there.
        bias: ``auto``: only without a norm.
        conv_cfg: ``dict(type='Conv2d')``.
        norm_cfg: ``dict(type='BN')``; None: no norm.
        act_cfg: None: no activation, for losses on features before a ReLU (AB, OFD).
        inplace: whether the activation may overwrite its input.
        with_spectral_norm: reparametrise the weight by its largest singular value.
        padding_mode: as for ``nn.Conv2d``.
        order: of ``conv``, ``norm`` and ``act``.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        in_channel: int,
        out_channel: int,
        kernel_size: int | tuple[int, int] = 1,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool | str = "auto",
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        act_cfg: Mapping[str, Any] | None = _RELU,
        inplace: bool = True,
        with_spectral_norm: bool = False,
        padding_mode: str = "zeros",
        order: Sequence[str] = ("conv", "norm", "act"),
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.conv_module = ConvBlock(
            in_channel,
            out_channel,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            conv_cfg,
            norm_cfg,
            act_cfg,
            # In front of everything else the activation would overwrite the student's own feature.
            inplace and order[0] != "act",
            with_spectral_norm,
            padding_mode,
            order,
        )

    def forward_train(self, feature: Tensor) -> Tensor:
        """(N, in_channel, H, W) -> (N, out_channel, H', W')."""
        return self.conv_module(feature)


class NormConnector(BaseConnector):
    """A norm layer.

    Args:
        in_channels: channels of the feature.
        norm_cfg: ``dict(type='BN', affine=False)``.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self, in_channels: int, norm_cfg: Mapping[str, Any], init_cfg: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.norm = build_norm(norm_cfg, in_channels)

    def forward_train(self, feature: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        return self.norm(feature)
