"""The elastic MobileNetV3 of AttentiveNAS, BigNAS and Once-for-All."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from razordeploy.compress.nas.supernets.backbone import SearchableBackbone
from razordeploy.compress.nas.supernets.layers import Config, ConvModule
from razordeploy.compress.nas.supernets.mobilenet_blocks import MBBlock
from razordeploy.compress.nas.supernets.ranges import parse_values
from razordeploy.errors import RecipeError
from razordeploy.subnet.dynamic_ops.sequential import DynamicSequential
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.channel import OneShotMutableChannel
from razordeploy.subnet.mutables.value import OneShotMutableValue
from razordeploy.subnet.widths import make_divisible

_DIMENSIONS = ("kernel_size", "num_blocks", "expand_ratio", "num_out_channels")


class AttentiveMobileNetV3(SearchableBackbone):
    """Elastic depth, width, kernel and expansion in every stage (AttentiveNAS, arXiv 2011.09011; BigNAS, arXiv
    2003.11142; Once-for-All, arXiv 1908.09791, with ``conv_cfg=dict(type='OFAConv2d')`` and ``fine_grained_mode``).

    Mutables go by aliases that begin with ``backbone.``: ``first_channels``, ``layers.N.{out_channels,depth}``,
    ``layers.N.{kernel_size,expand_ratio}`` or, in ``fine_grained_mode``, ``layers.N.B.{kernel_size,...}`` of block B,
    and ``last_channels``.

    Args:
        arch_setting: ``[low, high, step]`` by stage of ``kernel_size`` and ``num_blocks``, of ``expand_ratio`` with one
            more for the last layer, and of ``num_out_channels`` with the stem before and the last layer after.
        widen_factor: multiplies the channels, made divisible by 8.
        out_indices: stages whose outputs are returned; the last layers are the stage after the last; None: those.
        frozen_stages: as of ``SearchableBackbone``, and so are ``norm_eval`` and ``init_cfg``.
        stride_list: by stage.
        with_se_list: by stage, whether its blocks squeeze and excite.
        act_cfg_list: of the stem, of the blocks by stage, and of the two last layers; None: ``act_cfg``.
        conv_cfg: a convolution of elastic kernel.
        norm_cfg: an elastic norm.
        act_cfg: of the blocks where ``act_cfg_list`` is None; the rest then has Swish.
        norm_eval: see there.
        with_cp: recompute activations in the backward pass.
        zero_init_residual: the last norm of blocks with a shortcut begins with zeros.
        fine_grained_mode: kernel and expansion by block instead of by stage.
        with_attentive_shortcut: a shortcut at every block.
        init_cfg: see there.
        in_channels: channels of the images.
        stem_stride: of the stem.
        with_last_layer: False leaves the pooled last layers out, as detectors want it.
        aliases: other aliases of mutables, by the name without ``backbone.``.

    Raises:
        RecipeError: ``arch_setting`` and the lists are of different lengths.
    """

    def __init__(
        self,
        arch_setting: Mapping[str, Sequence[Sequence[int]]],
        widen_factor: float = 1.0,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        stride_list: Sequence[int] | None = None,
        with_se_list: Sequence[bool] | None = None,
        act_cfg_list: Sequence[Config] | None = None,
        conv_cfg: Config = "BigNasConv2d",
        norm_cfg: Config = "DynamicBatchNorm2d",
        act_cfg: Config = "Swish",
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        fine_grained_mode: bool = False,
        with_attentive_shortcut: bool = True,
        init_cfg: Any = None,
        in_channels: int = 3,
        stem_stride: int = 2,
        with_last_layer: bool = True,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        missing = [name for name in _DIMENSIONS if name not in arch_setting]
        if missing:
            raise RecipeError(f"AttentiveMobileNetV3: arch_setting has no {', '.join(missing)}")
        space = {name: parse_values(arch_setting[name], name) for name in _DIMENSIONS}
        channels = [sorted({make_divisible(c * widen_factor, 8) for c in row}) for row in space["num_out_channels"]]
        strides = list(stride_list or [1, 2, 2, 2, 1, 2, 1][: len(space["kernel_size"])])
        with_se = list(with_se_list or [False, False, True, False, True, True, True][: len(strides)])
        self._check_lengths(space, strides, with_se)
        last = len(strides) if with_last_layer else len(strides) - 1
        super().__init__(last + 1, (last,) if out_indices is None else out_indices, frozen_stages, norm_eval, init_cfg)
        acts = list(act_cfg_list or ["Swish", *[act_cfg] * len(strides), "Swish", "Swish"])
        if len(acts) != len(strides) + 3:
            raise RecipeError(
                f"AttentiveMobileNetV3: expected act_cfg_list of the stem, {len(strides)} stages and two last layers, "
                f"got {len(acts)} entries"
            )
        self.fine_grained_mode, self.widen_factor = fine_grained_mode, widen_factor
        self._aliases = dict(aliases or {})
        layers: dict[str, Any] = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg}
        self.first_conv = ConvModule(in_channels, channels[0][-1], 3, stem_stride, act_cfg=acts[0], **layers)
        self.first_mutable_channels = self._channels("first_channels", channels[0])
        self.first_conv.follow(outputs=self.first_mutable_channels)
        inputs: OneShotMutableChannel = self.first_mutable_channels
        self.layers: list[str] = []
        for stage, stride in enumerate(strides):
            row = {name: [int(v) for v in space[name][stage]] for name in ("kernel_size", "num_blocks", "expand_ratio")}
            block = {
                **layers,
                "act_cfg": acts[stage + 1],
                "with_cp": with_cp,
                "with_attentive_shortcut": with_attentive_shortcut,
                "se_cfg": {"ratio": 4, "conv_cfg": conv_cfg} if with_se[stage] else None,
            }
            outputs = self._channels(f"layers.{stage + 1}.out_channels", channels[stage + 1])
            self.add_module(f"layer{stage + 1}", self._stage(stage + 1, stride, row, block, inputs, outputs))
            self.layers.append(f"layer{stage + 1}")
            inputs = outputs
        self.last_mutable_channels: BaseMutable = inputs
        if with_last_layer:
            self._add_last(inputs, channels[-1], [int(v) for v in space["expand_ratio"][-1]], acts[-2:], layers)
        self.out_channels = self.last_mutable_channels.num_channels
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, MBBlock) and (module.has_residual or module.with_attentive_shortcut):
                    norm: Any = module.linear_conv.bn
                    nn.init.zeros_(norm.weight)

    @staticmethod
    def _check_lengths(space: Mapping[str, list[Any]], strides: list[int], with_se: list[bool]) -> None:
        stages = len(space["kernel_size"])
        found = (len(space["num_blocks"]), len(space["expand_ratio"]) - 1, len(space["num_out_channels"]) - 2)
        if {*found, len(strides), len(with_se)} != {stages}:
            raise RecipeError(
                f"AttentiveMobileNetV3: expected settings of {stages} stages as of kernel_size, got num_blocks of "
                f"{found[0]}, expand_ratio of {found[1]} and one more, num_out_channels of {found[2]} and two more, "
                f"{len(strides)} strides and {len(with_se)} with_se"
            )

    def _stage(
        self,
        number: int,
        stride: int,
        space: Mapping[str, list[int]],
        block: Mapping[str, Any],
        inputs: OneShotMutableChannel,
        outputs: OneShotMutableChannel,
    ) -> DynamicSequential:
        """The blocks of one stage, all of them elastic."""
        prefix = f"layers.{number}."
        blocks: list[nn.Module] = []
        shared = None if self.fine_grained_mode else self._kernel_and_ratio(prefix, space)
        for index in range(space["num_blocks"][-1]):
            kernel, ratio = shared or self._kernel_and_ratio(f"{prefix}{index}.", space)
            part = MBBlock(
                kernel_size=space["kernel_size"][-1],
                expand_ratio=space["expand_ratio"][-1],
                in_channels=inputs.num_channels,
                out_channels=outputs.num_channels,
                stride=stride if index == 0 else 1,
                **block,
            )
            squeezed = None
            if self.fine_grained_mode and part.with_se:
                squeezed = self._value(f"{prefix}{index}.expand_ratio_se", space["expand_ratio"])
            part.mutable_kernel_size, part.mutable_expand_ratio = kernel, ratio
            if squeezed is not None:
                part.mutable_se_expand_ratio = squeezed
            part.follow(inputs, outputs, ratio, kernel, squeezed)
            blocks.append(part)
            inputs = outputs
        stage = DynamicSequential(*blocks)
        stage.register_mutable_attr("depth", self._value(f"{prefix}depth", space["num_blocks"]))
        return stage

    def _add_last(
        self,
        inputs: OneShotMutableChannel,
        channels: list[int],
        ratios: list[int],
        acts: Sequence[Config],
        layers: Mapping[str, Any],
    ) -> None:
        outputs = self._channels("last_channels", channels)
        chosen = self._value("last_expand_ratio", ratios) if len(ratios) > 1 else None
        if chosen is not None:
            self.last_mutable_expand_value = chosen
        # A float, because an int repeats channels in place, and what is kept has to be a prefix.
        middle: Any = inputs * (chosen or float(ratios[0]))
        wide = inputs.num_channels * ratios[-1]
        self.last_conv = nn.Sequential()
        expand = ConvModule(inputs.num_channels, wide, 1, act_cfg=acts[0], **layers)
        mix = ConvModule(wide, channels[-1], 1, bias=False, act_cfg=acts[1], conv_cfg=layers["conv_cfg"], norm_cfg=None)
        expand.follow(inputs, middle)
        mix.follow(middle, outputs)
        self.last_conv.add_module("final_expand_layer", expand)
        self.last_conv.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.last_conv.add_module("feature_mix_layer", mix)
        self.last_mutable_channels = outputs
        self.layers.append("last_conv")

    def set_dropout(self, dropout_stages: Sequence[int], drop_path_rate: float) -> None:
        """Let the blocks of ``dropout_stages``, from 1, skip samples with ``drop_path_rate``, the others never."""
        for number, name in enumerate(self.layers, start=1):
            for module in getattr(self, name).modules():
                if isinstance(module, MBBlock):
                    module.drop_path_rate = drop_path_rate if number in dropout_stages else 0.0

    def stem_and_stages(self) -> list[nn.Module]:
        """The stem and the stages."""
        return [self.first_conv, *(getattr(self, name) for name in self.layers)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) -> the feature maps of ``out_indices``."""
        x = self.first_conv(x)
        found = []
        for index, name in enumerate(self.layers):
            x = getattr(self, name)(x)
            if index in self.out_indices:
                found.append(x)
        return tuple(found)

    def _channels(self, name: str, choices: Sequence[int]) -> OneShotMutableChannel:
        alias = self._aliases.get(name, f"backbone.{name}")
        return OneShotMutableChannel(max(choices), list(choices), alias=alias)

    def _value(self, name: str, choices: Sequence[int]) -> OneShotMutableValue:
        return OneShotMutableValue(list(choices), alias=self._aliases.get(name, f"backbone.{name}"))

    def _kernel_and_ratio(
        self, prefix: str, space: Mapping[str, list[int]]
    ) -> tuple[OneShotMutableValue, OneShotMutableValue]:
        kernel = self._value(f"{prefix}kernel_size", space["kernel_size"])
        return kernel, self._value(f"{prefix}expand_ratio", space["expand_ratio"])
