"""Two-block classifiers of 8x8 images, and batches for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Tiny(nn.Module):
    """conv-bn-relu twice, dropout, pool, linear; the first block halves the size."""

    def __init__(self, width: int = 4, num_classes: int = 3, inplace: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.relu2 = nn.ReLU(inplace)
        self.dropout = nn.Dropout(dropout)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.fc(self.pool(self.dropout(self.relu2(self.bn2(self.conv2(x))))))


class FixedWidth(Tiny):
    """Its code says 4 where no attribute does."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x))).reshape(-1, 4, 4, 4)
        return self.fc(self.pool(self.relu2(self.bn2(self.conv2(x)))))


def tiny(seed: int = 0, **options: Any) -> Tiny:
    torch.manual_seed(seed)
    model = Tiny(**options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.5)
    return model


def images(count: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def targets(count: int = 6) -> Tensor:
    return torch.arange(count) % 3


def outputs(source: str) -> dict[str, str]:
    return {"type": "ModuleOutputs", "source": source}


def kd(**loss: Any) -> dict[str, Any]:
    """A distiller of the logits."""
    return {
        "student_recorders": {"fc": outputs("fc")},
        "teacher_recorders": {"fc": outputs("fc")},
        "distill_losses": {"loss_kl": {"type": "KLDivergence", "tau": 4, **loss}},
        "loss_forward_mappings": {
            "loss_kl": {
                "preds_S": {"recorder": "fc", "from_student": True},
                "preds_T": {"recorder": "fc", "from_student": False},
            }
        },
    }


def samples(split: str, count: int = 48) -> list[tuple[Tensor, int]]:
    """Images whose class is the one that a fixed network sees in them."""
    x = images(count, seed=int(split == "test"))
    return list(zip(x, tiny(7, width=8).eval()(x).argmax(1).tolist(), strict=True))
