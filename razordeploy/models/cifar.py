"""Networks for 32x32 images: CIFAR-10's ResNets, and a MobileNet.

The ResNets are those of He et al. 2016 (arXiv 1512.03385, section 4.2), with parameter-free shortcuts (option A).
Module names follow the public checkpoints, whose keys carry the prefix ``module.``.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class PadShortcut(nn.Module):
    """Option A: every second pixel, channels padded with zeros on both sides."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + added, H / 2, W / 2)."""
        side = self.added // 2
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, self.added - side))


class BasicBlock(nn.Module):
    """Two 3x3 conv-bn and a parameter-free shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut = PadShortcut(outputs - inputs) if stride != 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels, each of ``blocks`` basic blocks: 6 x blocks + 2 weighted layers."""

    def __init__(self, blocks: int, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> logits (N, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.pool(x).flatten(1))


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))


def resnet20(num_classes: int = 10) -> CifarResNet:
    """ResNet-20 for 32x32 images, 0.27 M parameters."""
    return CifarResNet(3, num_classes)


def resnet56(num_classes: int = 10) -> CifarResNet:
    """ResNet-56 for 32x32 images, 0.85 M parameters."""
    return CifarResNet(9, num_classes)


# Output channels and stride of each depthwise separable block.
_MOBILENET = ((32, 1), (64, 2), (64, 1), (128, 2), *3 * ((128, 1),), (256, 2), (256, 1))


class Separable(nn.Sequential):
    """A 3x3 convolution of each channel and a 1x1 convolution over all, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(
            *_conv(inputs, inputs, 3, stride=stride, padding=1, groups=inputs),
            *_conv(inputs, outputs, 1),
        )


class MobileNet(nn.Sequential):
    """MobileNetV1 (Howard et al. 2017, arXiv 1704.04861, table 1) with ReLU, half as wide and shallower, for 32x32."""

    def __init__(self, num_classes: int = 10) -> None:
        blocks, width = [], 16
        for outputs, stride in _MOBILENET:
            blocks.append(Separable(width, outputs, stride))
            width = outputs
        super().__init__(
            *_conv(3, 16, 3, padding=1),
            *blocks,
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)),
        )


def _conv(inputs: int, outputs: int, size: int, **options: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, size, bias=False, **options),  # type: ignore[arg-type]
        *(nn.BatchNorm2d(outputs), nn.ReLU()),
    )


def mobilenet(num_classes: int = 10) -> MobileNet:
    """MobileNet for 32x32 images: 19 convolutions, 10 M multiply-accumulates, 0.18 M parameters."""
    return MobileNet(num_classes)
