"""The dynamic operations that a config may name."""

from __future__ import annotations

from razordeploy.subnet.dynamic_ops.adaptive_padding import DynamicConv2dAdaptivePadding
from razordeploy.subnet.dynamic_ops.attention import (
    DynamicMultiheadAttention,
    DynamicPatchEmbed,
    DynamicRelativePosition2D,
)
from razordeploy.subnet.dynamic_ops.base import DynamicMixin
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
from razordeploy.subnet.dynamic_ops.dmcp_batchnorm import DMCPBatchNorm2d
from razordeploy.subnet.dynamic_ops.fuse_conv import FuseConv2d
from razordeploy.subnet.dynamic_ops.group_fisher import GroupFisherConv2d, GroupFisherLinear
from razordeploy.subnet.dynamic_ops.kernel_conv import BigNasConv2d, OFAConv2d
from razordeploy.subnet.dynamic_ops.layer_norm import DynamicGroupNorm, DynamicLayerNorm, DynamicLayerNorm2d
from razordeploy.subnet.dynamic_ops.linear import DynamicLinear
from razordeploy.subnet.dynamic_ops.resizer import DynamicInputResizer
from razordeploy.subnet.dynamic_ops.sequential import DynamicSequential
from razordeploy.subnet.dynamic_ops.switchable_batchnorm import SwitchableBatchNorm2d

DYNAMIC_OPS: dict[str, type[DynamicMixin]] = {
    "BigNasConv2d": BigNasConv2d,
    "DMCPBatchNorm2d": DMCPBatchNorm2d,
    "DynamicBatchNorm1d": DynamicBatchNorm1d,
    "DynamicBatchNorm2d": DynamicBatchNorm2d,
    "DynamicBatchNorm3d": DynamicBatchNorm3d,
    "DynamicBatchNormXd": DynamicBatchNormXd,
    "DynamicConv1d": DynamicConv1d,
    "DynamicConv2d": DynamicConv2d,
    "DynamicConv2dAdaptivePadding": DynamicConv2dAdaptivePadding,
    "DynamicConv3d": DynamicConv3d,
    "DynamicConvTranspose1d": DynamicConvTranspose1d,
    "DynamicConvTranspose2d": DynamicConvTranspose2d,
    "DynamicConvTranspose3d": DynamicConvTranspose3d,
    "DynamicGroupNorm": DynamicGroupNorm,
    "DynamicInputResizer": DynamicInputResizer,
    "DynamicLayerNorm": DynamicLayerNorm,
    "DynamicLayerNorm2d": DynamicLayerNorm2d,
    "DynamicLinear": DynamicLinear,
    "DynamicMultiheadAttention": DynamicMultiheadAttention,
    "DynamicPatchEmbed": DynamicPatchEmbed,
    "DynamicRelativePosition2D": DynamicRelativePosition2D,
    "DynamicSequential": DynamicSequential,
    "DynamicSyncBatchNorm": DynamicSyncBatchNorm,
    "FuseConv2d": FuseConv2d,
    "GroupFisherConv2d": GroupFisherConv2d,
    "GroupFisherLinear": GroupFisherLinear,
    "OFAConv2d": OFAConv2d,
    "SwitchableBatchNorm2d": SwitchableBatchNorm2d,
}
