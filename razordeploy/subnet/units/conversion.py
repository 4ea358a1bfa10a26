"""Which dynamic operation stands in for which layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.adaptive_padding import DynamicConv2dAdaptivePadding
from razordeploy.subnet.dynamic_ops.base import DynamicChannelMixin
from razordeploy.subnet.dynamic_ops.batchnorm import (
    DynamicBatchNorm1d,
    DynamicBatchNorm2d,
    DynamicBatchNorm3d,
    DynamicBatchNormXd,
    DynamicSyncBatchNorm,
)
from razordeploy.subnet.dynamic_ops.conv import DynamicConv1d, DynamicConv2d, DynamicConv3d
from razordeploy.subnet.dynamic_ops.conv_transpose import (
    DynamicConvTranspose1d,
    DynamicConvTranspose2d,
    DynamicConvTranspose3d,
)
from razordeploy.subnet.dynamic_ops.layer_norm import DynamicGroupNorm, DynamicLayerNorm, DynamicLayerNorm2d
from razordeploy.subnet.dynamic_ops.linear import DynamicLinear

DynamicMap: TypeAlias = Mapping[type[nn.Module], type[DynamicChannelMixin]]

DYNAMIC_LAYERS: DynamicMap = {
    nn.Conv1d: DynamicConv1d,
    nn.Conv2d: DynamicConv2d,
    nn.Conv3d: DynamicConv3d,
    nn.ConvTranspose1d: DynamicConvTranspose1d,
    nn.ConvTranspose2d: DynamicConvTranspose2d,
    nn.ConvTranspose3d: DynamicConvTranspose3d,
    nn.Linear: DynamicLinear,
    nn.BatchNorm1d: DynamicBatchNorm1d,
    nn.BatchNorm2d: DynamicBatchNorm2d,
    nn.BatchNorm3d: DynamicBatchNorm3d,
    nn.SyncBatchNorm: DynamicSyncBatchNorm,
    _BatchNorm: DynamicBatchNormXd,
    nn.LayerNorm: DynamicLayerNorm,
    nn.GroupNorm: DynamicGroupNorm,
}
# Layers of mmcv and mmcls, which need not be installed, by the name of their class.
BY_NAME: Mapping[str, type[DynamicChannelMixin]] = {
    "Conv2dAdaptivePadding": DynamicConv2dAdaptivePadding,
    "LayerNorm2d": DynamicLayerNorm2d,
}


def dynamic_class(module: nn.Module, overrides: DynamicMap | None = None) -> type[DynamicChannelMixin] | None:
    """The dynamic operation for ``module``; None where no layer is known whose channels it has.

    Args:
        module: any module.
        overrides: layers that an algorithm wants other operations for.
    """
    if isinstance(module, DynamicChannelMixin):
        return type(module)
    found = BY_NAME.get(type(module).__name__)
    table = {**DYNAMIC_LAYERS, **(overrides or {})}
    for base in type(module).__mro__:
        found = found or table.get(base)
    if found is None:
        return None
    try:
        found.check_convertible(module)
    except ModelError:
        return None
    return found


def layer_paths(model: nn.Module) -> list[str]:
    """Paths of the modules that have a dynamic operation."""
    modules = model.named_modules(remove_duplicate=False)
    return [path for path, module in modules if path and dynamic_class(module) is not None]
