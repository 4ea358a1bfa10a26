"""A small one-stage detector: searchable backbone, feature pyramid, a head that all levels share."""

from __future__ import annotations

import torch
from mmengine.model import BaseModel
from torch import nn
from torch.nn import functional

from razordeploy.compress.nas.supernets.shufflenet_v2 import SearchableShuffleNetV2

CHOICE = {
    "type": "mmrazor.OneShotMutableOP",
    "candidates": {
        "shuffle_3x3": {"type": "ShuffleBlock", "kernel_size": 3},
        "shuffle_5x5": {"type": "ShuffleBlock", "kernel_size": 5},
        "shuffle_xception": {"type": "ShuffleXception"},
    },
}


class Pyramid(nn.Module):
    """Lateral 1x1 convolutions, summed from the top down."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels)

    def forward(self, feats):
        maps = [conv(x) for conv, x in zip(self.lateral, feats, strict=True)]
        for index in reversed(range(len(maps) - 1)):
            maps[index] = maps[index] + functional.interpolate(maps[index + 1], size=maps[index].shape[2:])
        return maps


class Detector(BaseModel):
    """Images (N, 3, H, W) -> per level class scores (N, 2, h, w) and boxes (N, 4, h, w)."""

    def __init__(self):
        super().__init__()
        stages = [[8, 2, CHOICE], [16, 1, CHOICE], [24, 1, CHOICE]]
        self.backbone = SearchableShuffleNetV2(stages, with_last_layer=False, out_indices=(0, 1, 2))
        self.neck = Pyramid([8, 16, 24], 8)
        self.scores, self.boxes = nn.Conv2d(8, 2, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        maps = self.neck(self.backbone(inputs))
        scores, boxes = [self.scores(x) for x in maps], [self.boxes(x) for x in maps]
        if mode == "loss":
            flat = torch.cat([x.flatten(2) for x in scores], 2).mean(2)
            return {
                "loss_cls": functional.cross_entropy(flat, data_samples["labels"]),
                "loss_bbox": sum(x.mean((2, 3)).sub(data_samples["boxes"]).abs().mean() for x in boxes),
            }
        return scores, boxes
