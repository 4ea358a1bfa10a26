"""A classifier of pooled feature maps around a searchable backbone."""

from __future__ import annotations

from torch import Tensor, nn

from razordeploy.compress.nas.supernets.heads import DynamicLinearClsHead
from razordeploy.subnet.mutables.base import BaseMutable


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
