"""A supernet of 32x32 colour images, around the CIFAR-10 ResNets."""

from __future__ import annotations

from typing import Any

from razordeploy.compress.nas.supernets.pooled import SupernetClassifier
from razordeploy.compress.nas.supernets.resnet_slice import ResNetSlice


def resnet_cifar(num_classes: int = 10) -> SupernetClassifier:
    """2,304 residual networks of three stages: ResNet-20, a block more in each stage, and all that is smaller.

    Widths are multiples of 8: an int8 engine needs as long for those between as for the next wider.
    """

    def widths(lower: int, upper: int, step: int) -> dict[str, Any]:
        return {"type": "Int", "lower": lower, "upper": upper + 1, "step": step}

    space = {
        "base_channels": widths(8, 16, 8),
        "stage_blocks": [{"type": "Categorical", "data": [1, 2, 3, 4]}] * 3,
        "stage_out_channel": [widths(8, 16, 8), widths(16, 32, 8), widths(32, 64, 16)],
    }
    backbone = ResNetSlice(18, space, num_stages=3, strides=(1, 2, 2), out_indices=(2,), small_stem=True)
    return SupernetClassifier(backbone, 64, num_classes, backbone.feat_dim)
