"""The architectures and blocks that a config may name."""

from __future__ import annotations

from torch import nn

from razordeploy.compress.nas.supernets.autoformer import AutoformerBackbone
from razordeploy.compress.nas.supernets.darts import DartsBackbone
from razordeploy.compress.nas.supernets.darts_blocks import DARTS_OPERATIONS
from razordeploy.compress.nas.supernets.efficientnet_blocks import ConvBnAct, DepthwiseSeparableConv
from razordeploy.compress.nas.supernets.heads import HEADS
from razordeploy.compress.nas.supernets.mobilenet_blocks import MBBlock
from razordeploy.compress.nas.supernets.mobilenet_v2 import SearchableMobileNetV2
from razordeploy.compress.nas.supernets.mobilenet_v3 import AttentiveMobileNetV3
from razordeploy.compress.nas.supernets.mobilenet_v3_slice import MobileNetV3Slice
from razordeploy.compress.nas.supernets.operation import Identity
from razordeploy.compress.nas.supernets.resnet_slice import ResNetSlice
from razordeploy.compress.nas.supernets.shuffle_blocks import ShuffleBlock, ShuffleXception
from razordeploy.compress.nas.supernets.shufflenet_v2 import SearchableShuffleNetV2

SUPERNETS: dict[str, type[nn.Module]] = {
    **DARTS_OPERATIONS,
    **HEADS,
    "AttentiveMobileNetV3": AttentiveMobileNetV3,
    "AutoformerBackbone": AutoformerBackbone,
    "ConvBnAct": ConvBnAct,
    "DartsBackbone": DartsBackbone,
    "DepthwiseSeparableConv": DepthwiseSeparableConv,
    "Identity": Identity,
    "MBBlock": MBBlock,
    "MobileNetV3Slice": MobileNetV3Slice,
    "ResNetSlice": ResNetSlice,
    "SearchableMobileNetV2": SearchableMobileNetV2,
    "SearchableShuffleNetV2": SearchableShuffleNetV2,
    "ShuffleBlock": ShuffleBlock,
    "ShuffleXception": ShuffleXception,
}
