"""Supernets of 8x8 grey images that train in seconds."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from razordeploy.compress.nas.supernets.blocks import Identity, MBBlock
from razordeploy.compress.nas.supernets.heads import DynamicLinearClsHead
from razordeploy.compress.nas.supernets.layers import ConvModule
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.one_shot_module import OneShotMutableOP


class SupernetClassifier(nn.Module):
    """A backbone, the mean over positions, and a linear classifier.

    Args:
        backbone: images -> a tuple of feature maps; the last is classified.
        channels: of that.
        num_classes: classes.
        mutable: what those channels follow; None: they do not change.
        resizer: of the images; None: they stay as they are.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        num_classes: int = 10,
        mutable: BaseMutable | None = None,
        resizer: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = DynamicLinearClsHead(num_classes, channels)
        if mutable is not None:
            self.head.connect_with_backbone(mutable)
        self.input_resizer = resizer

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, num_classes)."""
        if self.input_resizer is not None:
            x = self.input_resizer(x)
        feature = self.backbone(x)[-1]
        logits: Tensor = self.head(feature.mean((2, 3)) if feature.dim() == 4 else feature)
        return logits


class ChoiceNet(nn.Module):
    """Three stages of a convolution and two choices each: four inverted residual blocks, or nothing.

    Args:
        width: channels of the first stage; the others have two and three times as many.
        in_channels: channels of the images.
    """

    def __init__(self, width: int = 12, in_channels: int = 1) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        channels = in_channels
        for outputs, stride in ((width, 1), (2 * width, 2), (3 * width, 2)):
            first = ConvModule(channels, outputs, 3, stride, norm_cfg="BN")
            self.layers.append(nn.Sequential(first, _choice(outputs), _choice(outputs)))
            channels = outputs

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) -> ((N, 3 * width, H / 4, W / 4),)."""
        for layer in self.layers:
            x = layer(x)
        return (x,)


def _choice(channels: int) -> OneShotMutableOP:
    candidates: dict[str, nn.Module] = {
        f"mb_k{kernel}e{ratio}": MBBlock(kernel, ratio, channels, channels) for kernel in (3, 5) for ratio in (2, 4)
    }
    return OneShotMutableOP(nn.ModuleDict({**candidates, "identity": Identity(channels, channels)}))


def spos_digits(num_classes: int = 10, width: int = 12, **options: Any) -> SupernetClassifier:
    """A single-path supernet of 15,625 subnets: six choices among four blocks and nothing."""
    return SupernetClassifier(ChoiceNet(width, **options), 3 * width, num_classes)
