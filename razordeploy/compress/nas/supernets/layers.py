"""Convolutions, norms and activations by config, plain or elastic, under the names that checkpoints know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.errors import RecipeError, nearest
from razordeploy.subnet.dynamic_ops.table import DYNAMIC_OPS
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.container import MutableChannelContainer

Config = Mapping[str, Any] | str | None

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "GELU": nn.GELU,
    "HSigmoid": nn.Hardsigmoid,
    "HSwish": nn.Hardswish,
    "ReLU": nn.ReLU,
    "ReLU6": nn.ReLU6,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
    "Swish": nn.SiLU,
}
CONVS: dict[str, type[nn.Module]] = {
    "BigNasConv2d": DYNAMIC_OPS["BigNasConv2d"],
    "Conv2d": nn.Conv2d,
    # What GML calls its own.
    "Conv2dSlice": DYNAMIC_OPS["BigNasConv2d"],
    "DynamicConv2d": DYNAMIC_OPS["DynamicConv2d"],
    "OFAConv2d": DYNAMIC_OPS["OFAConv2d"],
}
NORMS: dict[str, type[nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "BN2d": nn.BatchNorm2d,
    "BatchNormSlice": DYNAMIC_OPS["DynamicBatchNorm2d"],
    "DynamicBatchNorm2d": DYNAMIC_OPS["DynamicBatchNorm2d"],
    "DynamicLayerNorm": DYNAMIC_OPS["DynamicLayerNorm"],
    "DynamicSyncBatchNorm": DYNAMIC_OPS["DynamicSyncBatchNorm"],
    "LN": nn.LayerNorm,
    "SyncBN": nn.SyncBatchNorm,
    "SyncBatchNormSlice": DYNAMIC_OPS["DynamicSyncBatchNorm"],
}
# Synchronised batch norms run on GPUs only.
_ON_CPU = {
    "DynamicSyncBatchNorm": "DynamicBatchNorm2d",
    "SyncBN": "BN",
    "SyncBatchNormSlice": "DynamicBatchNorm2d",
}
_SCOPES = ("mmrazor.", "razordeploy.", "gml.", "mmcls.", "mmengine.")


def bare_name(config: Config, default: str) -> tuple[str, dict[str, Any]]:
    """The name without a scope and the keywords of a layer's config; None is ``default``."""
    if config is None or isinstance(config, str):
        name, keywords = config or default, {}
    else:
        keywords = {key: value for key, value in config.items() if key not in ("type", "_scope_")}
        name = str(config.get("type", default))
    for scope in _SCOPES:
        name = name.removeprefix(scope)
    return name, keywords


def build_conv(config: Config, *args: Any, **kwargs: Any) -> nn.Module:
    """The convolution that ``config`` names; None is ``nn.Conv2d``."""
    name, keywords = bare_name(config, "Conv2d")
    return _find(CONVS, name, "conv_cfg")(*args, **kwargs, **keywords)


def build_norm(config: Config, num_features: int) -> nn.Module:
    """The norm that ``config`` names, its parameters frozen by ``requires_grad=False``."""
    name, keywords = bare_name(config, "BN")
    trained = keywords.pop("requires_grad", True)
    if not torch.cuda.is_available():
        name = _ON_CPU.get(name, name)
    norm = _find(NORMS, name, "norm_cfg")(num_features, **keywords)
    return norm if trained else norm.requires_grad_(False)


def build_activation(config: Config) -> nn.Module:
    """The activation that ``config`` names; it leaves its input as it is."""
    name, keywords = bare_name(config, "ReLU")
    keywords.pop("inplace", None)
    return _find(ACTIVATIONS, name, "act_cfg")(**keywords)


def _find(table: Mapping[str, type[nn.Module]], name: str, noun: str) -> type[nn.Module]:
    if name not in table:
        raise RecipeError(f"{noun}: unknown type '{name}'", hint=nearest(name, table))
    return table[name]


class ConvModule(nn.Module):
    """Convolution, norm and activation as ``conv``, ``bn`` and ``activate``; the convolution has a bias where no norm
    follows.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel.
        stride: of the convolution.
        padding: on each side; None keeps the size at stride 1.
        groups: of the convolution.
        bias: None: as above.
        conv_cfg: see ``build_conv``.
        norm_cfg: see ``build_norm``; None: no norm.
        act_cfg: see ``build_activation``; None: no activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool | None = None,
        conv_cfg: Config = None,
        norm_cfg: Config = None,
        act_cfg: Config = "ReLU",
    ) -> None:
        super().__init__()
        self.conv = build_conv(
            conv_cfg,
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2 if padding is None else padding,
            groups=groups,
            bias=norm_cfg is None if bias is None else bias,
        )
        self.bn = None if norm_cfg is None else build_norm(norm_cfg, out_channels)
        self.activate = None if act_cfg is None else build_activation(act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        return x if self.activate is None else self.activate(x)

    def follow(
        self, inputs: BaseMutable | None = None, outputs: BaseMutable | None = None, kernel: BaseMutable | None = None
    ) -> None:
        """Let the channels and the kernel size follow mutables; None stays as it is."""
        follow(self.conv, inputs, outputs)
        if outputs is not None and self.bn is not None:
            follow(self.bn, outputs=outputs)
        if kernel is not None:
            conv: Any = self.conv
            conv.register_mutable_attr("kernel_size", kernel)


def follow(operation: nn.Module, inputs: BaseMutable | None = None, outputs: BaseMutable | None = None) -> None:
    """Let the channels of a dynamic operation follow mutables; None stays as it is."""
    for mutable, is_output in ((inputs, False), (outputs, True)):
        if mutable is not None:
            MutableChannelContainer.register_mutable_channel_to_module(operation, mutable, is_output)


class DropPath(nn.Module):
    """Zeroes whole samples with ``drop_prob`` in training and scales the others up (Huang et al., arXiv 1603.09382)."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> (N, ...)."""
        if not self.training or self.drop_prob == 0.0:
            return x
        kept = 1.0 - self.drop_prob
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        return x * (torch.rand(shape, device=x.device, dtype=x.dtype) < kept) / kept

    def extra_repr(self) -> str:
        """The probability."""
        return f"drop_prob={self.drop_prob}"


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave ``groups`` groups of channels of (N, C, H, W)."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
