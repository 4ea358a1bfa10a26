"""Supernets of 8x8 grey images that train in seconds."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from razordeploy.compress.nas.supernets.autoformer import AutoformerBackbone
from razordeploy.compress.nas.supernets.darts import DartsBackbone
from razordeploy.compress.nas.supernets.layers import ConvModule
from razordeploy.compress.nas.supernets.mobilenet_blocks import MBBlock
from razordeploy.compress.nas.supernets.mobilenet_v3 import AttentiveMobileNetV3
from razordeploy.compress.nas.supernets.operation import Identity
from razordeploy.compress.nas.supernets.pooled import SupernetClassifier
from razordeploy.compress.nas.supernets.resnet_slice import ResNetSlice
from razordeploy.subnet.dynamic_ops.resizer import DynamicInputResizer
from razordeploy.subnet.mutables.diff_module import OneHotMutableOP
from razordeploy.subnet.mutables.one_shot_module import OneShotMutableOP
from razordeploy.subnet.mutables.value import OneShotMutableValue


class ChoiceNet(nn.Module):
    """Three stages of a convolution and two choices each: four inverted residual blocks, or nothing.

    Args:
        width: channels of the first stage; the others have two and three times as many.
        in_channels: channels of the images.
        mutable: the class of the choices.
    """

    def __init__(self, width: int = 12, in_channels: int = 1, mutable: Any = OneShotMutableOP) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        channels = in_channels
        for outputs, stride in ((width, 1), (2 * width, 2), (3 * width, 2)):
            first = ConvModule(channels, outputs, 3, stride, norm_cfg="BN")
            self.layers.append(nn.Sequential(first, _choice(outputs, mutable), _choice(outputs, mutable)))
            channels = outputs

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) -> ((N, 3 * width, H / 4, W / 4),)."""
        for layer in self.layers:
            x = layer(x)
        return (x,)


def _choice(channels: int, mutable: Any) -> nn.Module:
    candidates: dict[str, nn.Module] = {
        f"mb_k{kernel}e{ratio}": MBBlock(kernel, ratio, channels, channels) for kernel in (3, 5) for ratio in (2, 4)
    }
    choice: nn.Module = mutable(nn.ModuleDict({**candidates, "identity": Identity(channels, channels)}))
    return choice


def spos_digits(num_classes: int = 10, width: int = 12, **options: Any) -> SupernetClassifier:
    """A single-path supernet of 15,625 subnets: six choices among four blocks and nothing."""
    return SupernetClassifier(ChoiceNet(width, **options), 3 * width, num_classes)


def dsnas_digits(num_classes: int = 10, width: int = 12) -> SupernetClassifier:
    """``spos_digits`` with one-hot choices whose probabilities are learned."""
    return SupernetClassifier(ChoiceNet(width, mutable=OneHotMutableOP), 3 * width, num_classes)


def bignas_digits(
    num_classes: int = 10,
    conv_type: str = "BigNasConv2d",
    fine_grained: bool = False,
    resolutions: tuple[int, ...] = (),
) -> SupernetClassifier:
    """An ``AttentiveMobileNetV3`` of three stages: elastic widths, kernels, expansions, depths and, with
    ``resolutions``, input sizes.
    """
    setting = {
        "kernel_size": [[3, 5, 2]] * 3,
        "num_blocks": [[1, 2, 1]] * 3,
        "expand_ratio": [[1, 2, 1], [2, 4, 2], [2, 4, 2], [2, 2, 1]],
        "num_out_channels": [[8, 16, 8], [8, 16, 8], [16, 24, 8], [24, 32, 8], [48, 64, 16]],
    }
    backbone = AttentiveMobileNetV3(
        setting,
        stride_list=[1, 2, 2],
        with_se_list=[False, False, True],
        conv_cfg=conv_type,
        fine_grained_mode=fine_grained,
        in_channels=1,
        stem_stride=1,
    )
    resizer = None
    if resolutions:
        resizer = DynamicInputResizer("bilinear")
        resizer.register_mutable_attr("shape", OneShotMutableValue(list(resolutions), alias="input_shape"))
    return SupernetClassifier(backbone, 64, num_classes, backbone.last_mutable_channels, resizer)


def darts_digits(num_classes: int = 10, base_channels: int = 4) -> SupernetClassifier:
    """Three cells, a normal one and two reductions, of two nodes each, and five operations on every edge."""
    candidates = {
        "zero": {"type": "DartsZero"},
        "skip_connect": {"type": "DartsSkipConnect"},
        "max_pool_3x3": {"type": "DartsPoolBN", "pool_type": "max"},
        "sep_conv_3x3": {"type": "DartsSepConv", "kernel_size": 3},
        "dil_conv_3x3": {"type": "DartsDilConv", "kernel_size": 3},
    }
    backbone = DartsBackbone(
        in_channels=1,
        base_channels=base_channels,
        mutable_cfg={"type": "DiffMutableOP", "candidates": candidates},
        route_cfg={"type": "DiffChoiceRoute", "with_arch_param": True},
        num_layers=3,
        num_nodes=2,
        out_indices=(2,),
    )
    return SupernetClassifier(backbone, backbone.out_channels, num_classes)


def autoformer_digits(num_classes: int = 10) -> SupernetClassifier:
    """A transformer over 16 patches: elastic embedding, depth, heads and perceptrons."""
    backbone = AutoformerBackbone(
        img_size=8,
        patch_size=2,
        in_channels=1,
        mlp_ratios=(1.0, 1.5, 2.0),
        num_heads=(2, 3, 4),
        depth=(2, 3),
        embed_dims=(24, 32),
        head_dims=8,
        max_relative_position=3,
    )
    return SupernetClassifier(backbone, 32, num_classes, backbone.last_mutable)


def resnet_digits(num_classes: int = 10, width: int = 16) -> SupernetClassifier:
    """A residual network of two stages whose stem and stages keep a quarter, half, three quarters or all channels."""

    def quarters(full: int) -> dict[str, Any]:
        return {"type": "Int", "lower": full // 4, "upper": full + 1, "step": full // 4}

    space = {
        "base_channels": quarters(width),
        "stage_blocks": [1, 1],
        "stage_out_channel": [quarters(width), quarters(2 * width)],
    }
    backbone = ResNetSlice(18, space, num_stages=2, strides=(1, 2), out_indices=(1,), in_channels=1, small_stem=True)
    return SupernetClassifier(backbone, 2 * width, num_classes, backbone.feat_dim)
