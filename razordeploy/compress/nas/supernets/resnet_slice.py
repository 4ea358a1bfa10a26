"""GML's elastic ResNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from razordeploy.compress.nas.supernets.backbone import SearchableBackbone
from razordeploy.compress.nas.supernets.gml_space import parse_entries, parse_entry
from razordeploy.compress.nas.supernets.layers import Config, build_conv, build_norm, follow
from razordeploy.errors import RecipeError, nearest
from razordeploy.subnet.dynamic_ops.sequential import DynamicSequential
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.channel import OneShotMutableChannel
from razordeploy.subnet.mutables.value import OneShotMutableValue

_DEPTHS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
}
"""Depth -> whether blocks are bottlenecks, and blocks by stage."""
_DIMENSIONS = ("base_channels", "stage_blocks", "stage_out_channel")


class ElasticBlock(nn.Module):
    """A basic or bottleneck residual block whose channels follow mutables.

    Args:
        inputs: channels of the input.
        planes: inner channels.
        outputs: channels of the output.
        bottleneck: 1x1, 3x3, 1x1 instead of two 3x3.
        stride: of the first 3x3.
        downsample: whether the shortcut has a 1x1 convolution.
        conv_cfg: an elastic convolution.
        norm_cfg: an elastic norm.
    """

    def __init__(
        self,
        inputs: Any,
        planes: Any,
        outputs: Any,
        bottleneck: bool,
        stride: int,
        downsample: bool,
        conv_cfg: Config,
        norm_cfg: Config,
    ) -> None:
        super().__init__()
        kernels = ((1, 1), (3, stride), (1, 1)) if bottleneck else ((3, stride), (3, 1))
        chain = [inputs, *[planes] * (len(kernels) - 1), outputs]
        self.depth = len(kernels)
        for number, (kernel, step) in enumerate(kernels, start=1):
            before, after = chain[number - 1], chain[number]
            conv = _conv(conv_cfg, before, after, kernel, step)
            norm = build_norm(norm_cfg, after.num_channels)
            follow(norm, outputs=after)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", norm)
        self.relu = nn.ReLU()
        self.downsample: nn.Module | None = None
        if downsample:
            norm = build_norm(norm_cfg, outputs.num_channels)
            follow(norm, outputs=outputs)
            self.downsample = nn.Sequential(_conv(conv_cfg, inputs, outputs, 1, stride), norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs kept, H, W) -> (N, outputs kept, H / stride, W / stride)."""
        y = x
        for number in range(1, self.depth + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            if number < self.depth:
                y = self.relu(y)
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNetSlice(SearchableBackbone):
    """A ResNet of elastic stem, stage widths and stage depths, by GML's ``search_space``.

    Args:
        depth: 18, 34, 50 or 101: which blocks, and how many where ``stage_blocks`` does not tell.
        search_space: entries ``base_channels``, and lists with an entry a stage of ``stage_blocks`` and
            ``stage_out_channel``, inner channels, four times as many outside of bottlenecks; what is left out is fixed.
        num_stages: stages.
        strides: of their first blocks.
        out_indices: stages whose outputs are returned.
        frozen_stages: as of ``SearchableBackbone``, and so are ``norm_eval`` and ``init_cfg``.
        norm_eval: see there.
        conv_cfg: an elastic convolution.
        norm_cfg: an elastic norm.
        init_cfg: see there.
        in_channels: channels of the images.
        small_stem: a 3x3 stem that keeps the size, for small images, instead of a 7x7 one of stride 2 and pooling.

    Raises:
        RecipeError: an unknown depth or dimension, or lists of another length.
    """

    def __init__(
        self,
        depth: int,
        search_space: Mapping[str, Any] | None = None,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        out_indices: Sequence[int] = (3,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        conv_cfg: Config = "DynamicConv2d",
        norm_cfg: Config = "DynamicBatchNorm2d",
        init_cfg: Any = None,
        in_channels: int = 3,
        small_stem: bool = False,
    ) -> None:
        super().__init__(num_stages, out_indices, frozen_stages, norm_eval, init_cfg)
        if depth not in _DEPTHS:
            raise RecipeError(f"ResNetSlice: expected a depth of {', '.join(map(str, _DEPTHS))}, got {depth}")
        space = dict(search_space or {})
        for name in space:
            if name not in _DIMENSIONS:
                raise RecipeError(f"search_space: no dimension '{name}'", hint=nearest(str(name), _DIMENSIONS))
        bottleneck, blocks = _DEPTHS[depth]
        stem, stem_key = parse_entry(space.get("base_channels", 64), "search_space.base_channels")
        depths, depth_keys = self._stages(space, "stage_blocks", blocks, num_stages)
        widths, width_keys = self._stages(
            space, "stage_out_channel", [64 * 2**i for i in range(num_stages)], num_stages
        )
        self.base_channels = OneShotMutableChannel(max(stem), list(stem), alias=stem_key or "base_channels")
        kernel, stride = (3, 1) if small_stem else (7, 2)
        self.conv1 = build_conv(
            conv_cfg, in_channels, max(stem), kernel, stride=stride, padding=kernel // 2, bias=False
        )
        follow(self.conv1, outputs=self.base_channels)
        self.bn1 = build_norm(norm_cfg, max(stem))
        follow(self.bn1, outputs=self.base_channels)
        self.relu = nn.ReLU()
        self.maxpool: nn.Module = nn.Identity() if small_stem else nn.MaxPool2d(3, stride=2, padding=1)
        inputs: Any = self.base_channels
        self.layers: list[str] = []
        for stage in range(num_stages):
            key = width_keys[stage] or f"stage_out_channel.{stage}"
            planes = OneShotMutableChannel(max(widths[stage]), list(widths[stage]), alias=key)
            # A float: the wider channels that are kept are a prefix as well.
            outputs = planes * 4.0 if bottleneck else planes
            layer, inputs = (
                self._layer(
                    inputs, planes, outputs, bottleneck, strides[stage], max(depths[stage]), conv_cfg, norm_cfg
                ),
                outputs,
            )
            depth_key = depth_keys[stage] or f"stage_blocks.{stage}"
            layer.register_mutable_attr("depth", OneShotMutableValue(list(depths[stage]), alias=depth_key))
            self.add_module(f"layer{stage + 1}", layer)
            self.layers.append(f"layer{stage + 1}")
        self._feat_dim = inputs

    @staticmethod
    def _layer(
        inputs: Any,
        planes: Any,
        outputs: Any,
        bottleneck: bool,
        stride: int,
        depth: int,
        conv_cfg: Config,
        norm_cfg: Config,
    ) -> DynamicSequential:
        blocks = []
        for index in range(depth):
            fixed = len({*inputs.choices, *outputs.choices}) == 1
            downsample = index == 0 and not (fixed and stride == 1)
            step = stride if index == 0 else 1
            blocks.append(ElasticBlock(inputs, planes, outputs, bottleneck, step, downsample, conv_cfg, norm_cfg))
            inputs = outputs
        return DynamicSequential(*blocks)

    @staticmethod
    def _stages(space: Mapping[str, Any], name: str, default: Sequence[int], num_stages: int) -> tuple[Any, Any]:
        entries = space.get(name, list(default)[:num_stages])
        values, keys = parse_entries(entries, f"search_space.{name}")
        if len(values) != num_stages:
            raise RecipeError(
                f"search_space.{name}: expected an entry for each of {num_stages} stages, got {len(values)}"
            )
        return values, keys

    @property
    def feat_dim(self) -> BaseMutable:
        """The channels of the last output, for ``connect_head``."""
        found: BaseMutable = self._feat_dim
        return found

    def stem_and_stages(self) -> list[nn.Module]:
        """The stem and the stages."""
        return [nn.ModuleList([self.conv1, self.bn1]), *(getattr(self, name) for name in self.layers)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) -> the feature maps of ``out_indices``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        found = []
        for index, name in enumerate(self.layers):
            x = getattr(self, name)(x)
            if index in self.out_indices:
                found.append(x)
        return tuple(found)


def _conv(config: Config, inputs: Any, outputs: Any, kernel: int, stride: int) -> nn.Module:
    conv = build_conv(
        config, inputs.num_channels, outputs.num_channels, kernel, stride=stride, padding=kernel // 2, bias=False
    )
    follow(conv, inputs, outputs)
    return conv
