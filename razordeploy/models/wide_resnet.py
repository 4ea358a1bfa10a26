"""Wide residual networks of three stages for small images, with the names that mmrazor's checkpoints have.

Wide Residual Networks (Zagoruyko and Komodakis 2016, arXiv 1605.07146).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from razordeploy.errors import ModelError

BLOCKS = {10: 1, 16: 2, 22: 3, 28: 4, 40: 6}
"""Depth -> blocks of a stage."""
W = TypeVar("W", bound="WideResNet")


class WideBlock(nn.Module):
    """Norm and ReLU before each of two 3x3 convolutions; the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        changes = stride != 1 or inputs != outputs
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        start = self.relu1(self.bn1(x))
        y = self.conv2(self.relu2(self.bn2(self.conv1(start))))
        return y + (x if self.downsample is None else self.downsample(start))


class WideResNet(nn.Module):
    """Stem and stages of base, 2 x base and 4 x base channels times ``widen_factor``.

    Args:
        depth: 10, 16, 22, 28 or 40.
        widen_factor: of the channels.
        in_channels: of the image.
        stem_channels: of the stem.
        base_channels: of the first stage, before it is widened.
        expansion: takes the place of ``widen_factor``.
        num_stages: 1 to 3.
        strides: of the first block of each stage.
        dilations: of each stage.
        frozen_stages: this many stages, and the stem, are not trained; -1: all are.
        conv_cfg: mmcv's; only plain convolutions.
        norm_cfg: mmcv's; only batch norms.
        norm_eval: batch norms use their running statistics in training too.
        zero_init_residual: start with blocks that do nothing.
        init_cfg: mmengine's initialisation config.

    Raises:
        ModelError: another depth, layer or number of stages.
    """

    def __init__(
        self,
        depth: int,
        widen_factor: int = 4,
        in_channels: int = 3,
        stem_channels: int = 16,
        base_channels: int = 16,
        expansion: int | None = None,
        num_stages: int = 3,
        strides: Sequence[int] = (1, 2, 2),
        dilations: Sequence[int] = (1, 1, 1),
        frozen_stages: int = -1,
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        norm_eval: bool = False,
        zero_init_residual: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__()
        kinds = ((conv_cfg or {}).get("type", "Conv2d"), (norm_cfg or {}).get("type", "BN"))
        if depth not in BLOCKS or not 1 <= num_stages <= 3 or kinds not in {("Conv2d", "BN"), ("Conv2d", "BN2d")}:
            raise ModelError(
                f"WideResNet: expected a depth of {', '.join(map(str, BLOCKS))}, 1 to 3 stages, Conv2d and BN; got "
                f"{depth}, {num_stages}, {kinds[0]} and {kinds[1]}"
            )
        self.frozen_stages, self.norm_eval, self.init_cfg = frozen_stages, norm_eval, init_cfg
        self.conv1 = nn.Conv2d(in_channels, stem_channels, 3, padding=1, bias=False)
        self.stages: list[str] = []
        inputs, outputs = stem_channels, base_channels * (expansion or widen_factor)
        for i in range(num_stages):
            blocks = [WideBlock(inputs, outputs, strides[i], dilations[i])]
            blocks += [WideBlock(outputs, outputs, 1, dilations[i]) for _ in range(BLOCKS[depth] - 1)]
            self.stages.append(f"layer{i + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*blocks))
            inputs, outputs = outputs, 2 * outputs
        self.feat_dim = inputs
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        self._draw(zero_init_residual)
        self.train()

    def _draw(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if zero_init_residual and isinstance(module, WideBlock):
                nn.init.zeros_(module.bn2.weight)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """(N, C, H, W) -> one map (N, 4 x base x widen, H / 4, W / 4), in a tuple as necks and heads want it."""
        x = self.conv1(x)
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return (self.relu(self.bn1(x)),)

    def init_weights(self) -> None:
        """Apply ``init_cfg``; mmengine calls this before training."""
        if self.init_cfg:
            from mmengine.model import initialize

            initialize(self, self.init_cfg)

    def train(self: W, mode: bool = True) -> W:
        """Keep frozen stages, and with ``norm_eval`` all batch norms, in eval mode."""
        super().train(mode)
        frozen = [self.conv1, *(self.get_submodule(n) for n in self.stages[: self.frozen_stages])]
        for module in frozen if self.frozen_stages >= 0 else ():
            module.eval().requires_grad_(False)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


BACKBONES: dict[str, type[nn.Module]] = {"WideResNet": WideResNet}
"""The backbone that a config may name."""
