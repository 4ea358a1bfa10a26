"""Early exits for self-distillation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.distill.connectors.base import BaseConnector
from razordeploy.errors import RecipeError


class SeparableConv(nn.Sequential):
    """Twice a depthwise, a pointwise convolution, batch norm and ReLU; the first depthwise one has the stride."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, stride: int) -> None:
        pad = kernel_size // 2
        super().__init__(
            nn.Conv2d(inputs, inputs, kernel_size, stride, pad, groups=inputs, bias=False),
            nn.Conv2d(inputs, inputs, 1, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, inputs, kernel_size, 1, pad, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class BYOTConnector(BaseConnector):
    """Attention, a chain of separable convolutions that each double the channels, average pool, classifier.

    Be Your Own Teacher (Zhang et al. 2019, arXiv 1905.08094), the bottleneck and classifier of a shallow exit.

    Args:
        in_channel: channels of the feature, divided by ``expansion``.
        out_channel: channels of the deepest feature, divided by ``expansion``; ``in_channel`` times a power of two.
        num_classes: of the classifier.
        expansion: 4 for bottleneck blocks, 1 for basic ones.
        pool_size: of the average pool at the end; has to bring the feature down to 1x1.
        kernel_size: of the depthwise convolutions.
        stride: of each separable convolution.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        in_channel: int,
        out_channel: int,
        num_classes: int,
        expansion: int = 4,
        pool_size: int | tuple[int, int] = 4,
        kernel_size: int = 3,
        stride: int = 2,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        steps = round(math.log2(out_channel / in_channel))
        if steps < 0 or in_channel * 2**steps != out_channel:
            raise RecipeError(
                f"BYOTConnector: expected out_channel as in_channel times a power of two, got {out_channel} and "
                f"{in_channel}"
            )
        width = in_channel * expansion
        self.attention = nn.Sequential(
            SeparableConv(width, width, kernel_size, stride), nn.BatchNorm2d(width), nn.ReLU()
        )
        widths = [width * 2**step for step in range(steps + 1)]
        self.scala = nn.Sequential(
            *(SeparableConv(a, b, kernel_size, stride) for a, b in zip(widths[:-1], widths[1:], strict=True)),
            nn.AvgPool2d(pool_size),
        )
        self.fc = nn.Linear(out_channel * expansion, num_classes)

    def forward_train(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> feature (N, C_out) and logits (N, num_classes)."""
        attention = functional.interpolate(self.attention(feature), feature.shape[2:], mode="bilinear").sigmoid()
        deep = self.scala(feature * attention).flatten(1)
        if deep.shape[1] != self.fc.in_features:
            raise RecipeError(
                f"BYOTConnector: expected {self.fc.in_features} values after the pool, got {deep.shape[1]}",
                hint=f"choose pool_size by the feature's size {tuple(feature.shape[2:])} and the strides",
            )
        return deep, self.fc(deep)
