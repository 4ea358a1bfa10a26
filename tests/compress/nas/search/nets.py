"""A supernet with every kind of choice, small enough to run hundreds of times."""

from __future__ import annotations

from torch import nn

from razordeploy.subnet.dynamic_ops.batchnorm import DynamicBatchNorm2d
from razordeploy.subnet.dynamic_ops.kernel_conv import BigNasConv2d, OFAConv2d
from razordeploy.subnet.dynamic_ops.linear import DynamicLinear
from razordeploy.subnet.dynamic_ops.resizer import DynamicInputResizer
from razordeploy.subnet.dynamic_ops.sequential import DynamicSequential
from razordeploy.subnet.mutables.channel import OneShotMutableChannel
from razordeploy.subnet.mutables.container import MutableChannelContainer
from razordeploy.subnet.mutables.one_shot_module import OneShotMutableOP
from razordeploy.subnet.mutables.value import OneShotMutableValue


def follow(op, inputs=None, outputs=None):
    for mutable, is_output in ((inputs, False), (outputs, True)):
        if mutable is not None:
            MutableChannelContainer.register_mutable_channel_to_module(op, mutable, is_output)
    return op


class Supernet(nn.Module):
    """Resolution, width, expansion, two kernels, depth and a choice of operations; (N, 3, 8, 8) -> (N, 10)."""

    def __init__(self):
        super().__init__()
        self.size = OneShotMutableValue([6, 8])
        self.width = OneShotMutableChannel(8, [4, 6, 8])
        self.ratio = OneShotMutableValue([1, 2])
        self.kernel = OneShotMutableValue([1, 3])
        self.depth = OneShotMutableValue([1, 2], alias="how_deep")
        middle = self.width * self.ratio
        self.resize = DynamicInputResizer()
        self.resize.register_mutable_attr("shape", self.size)
        self.stem = follow(BigNasConv2d(3, 8, 3, padding=1), outputs=self.width)
        self.stem.register_mutable_attr("kernel_size", self.kernel)
        self.norm = follow(DynamicBatchNorm2d(8), outputs=self.width)
        self.up = follow(OFAConv2d(8, 16, 3, padding=1), self.width, middle)
        self.up.register_mutable_attr("kernel_size", self.kernel)
        links = [follow(BigNasConv2d(16, 16, 1), middle, middle) for _ in range(2)]
        self.chain = DynamicSequential(*links)
        self.chain.register_mutable_attr("depth", self.depth)
        self.down = follow(BigNasConv2d(16, 5, 1), middle)
        plain = nn.Sequential(nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5))
        self.op = OneShotMutableOP({"three": nn.Conv2d(5, 5, 3, padding=1), "one": plain, "none": nn.Identity()})
        self.head = DynamicLinear(5, 10)

    def forward(self, x):
        x = self.norm(self.stem(self.resize(x))).relu()
        return self.head(self.op(self.down(self.chain(self.up(x).relu()).relu())).mean((2, 3)))
