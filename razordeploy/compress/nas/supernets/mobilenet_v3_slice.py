"""GML's elastic MobileNetV3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from razordeploy.compress.nas.supernets.gml_space import parse_entries
from razordeploy.compress.nas.supernets.layers import Config
from razordeploy.compress.nas.supernets.mobilenet_v3 import AttentiveMobileNetV3
from razordeploy.errors import RecipeError, nearest
from razordeploy.subnet.mutables.base import BaseMutable

_DIMENSIONS = {
    "MB_stage_blocks": "depth",
    "MB_kernel_size": "kernel_size",
    "MB_expand_ratio": "expand_ratio",
    "MB_out_channels": "out_channels",
}


class MobileNetV3Slice(AttentiveMobileNetV3):
    """An ``AttentiveMobileNetV3`` by GML's ``search_space``.

    Every list of ``search_space`` has an entry for the first convolution, one a stage, and one for the last layers.
    Mutables go by their ``key``, else by the list's name and the number of the entry.

    Args:
        search_space: ``MB_stage_blocks``, ``MB_kernel_size``, ``MB_expand_ratio`` and ``MB_out_channels``.
        out_indices: as of ``AttentiveMobileNetV3``, like all that follow, but counted from the first convolution: 1 is
            the first stage.
        stride_list: see there.
        with_se_list: see there.
        conv_cfg: see there.
        norm_cfg: see there.
        act_cfg: see there.
        norm_eval: see there.
        with_attentive_shortcut: see there.
        with_last_layer: see there.
        init_cfg: see there.
        in_channels: see there.
        stem_stride: see there.

    Raises:
        RecipeError: a list is missing, unknown, or has another length.
    """

    def __init__(
        self,
        search_space: Mapping[str, Any],
        out_indices: Sequence[int] | None = None,
        stride_list: Sequence[int] | None = None,
        with_se_list: Sequence[bool] | None = None,
        conv_cfg: Config = "BigNasConv2d",
        norm_cfg: Config = "DynamicBatchNorm2d",
        act_cfg: Config = "Swish",
        norm_eval: bool = False,
        with_attentive_shortcut: bool = True,
        with_last_layer: bool = True,
        init_cfg: Any = None,
        in_channels: int = 3,
        stem_stride: int = 2,
    ) -> None:
        for name in search_space:
            if name not in _DIMENSIONS:
                raise RecipeError(f"search_space: no dimension '{name}'", hint=nearest(str(name), _DIMENSIONS))
        missing = [name for name in _DIMENSIONS if name not in search_space]
        if missing:
            raise RecipeError(f"search_space has no {', '.join(missing)}")
        parsed = {name: parse_entries(search_space[name], f"search_space.{name}") for name in _DIMENSIONS}
        lengths = {name: len(values) for name, (values, _) in parsed.items()}
        if len(set(lengths.values())) != 1 or min(lengths.values()) < 3:
            raise RecipeError(f"search_space: expected lists of one length, at least 3, got {lengths}")
        values = {name: entries for name, (entries, _) in parsed.items()}
        super().__init__(
            {
                "num_blocks": values["MB_stage_blocks"][1:-1],
                "kernel_size": values["MB_kernel_size"][1:-1],
                "expand_ratio": values["MB_expand_ratio"][1:],
                "num_out_channels": values["MB_out_channels"],
            },
            out_indices=None if out_indices is None else [index - 1 for index in out_indices],
            stride_list=stride_list,
            with_se_list=with_se_list,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            norm_eval=norm_eval,
            with_attentive_shortcut=with_attentive_shortcut,
            with_last_layer=with_last_layer,
            init_cfg=init_cfg,
            in_channels=in_channels,
            stem_stride=stem_stride,
            aliases=_aliases({name: keys for name, (_, keys) in parsed.items()}),
        )

    @property
    def feat_dim(self) -> BaseMutable:
        """The channels of the last output, for ``connect_head``."""
        return self.last_mutable_channels


def _aliases(keys: Mapping[str, Sequence[str | None]]) -> dict[str, str]:
    """By our name of a mutable, GML's."""
    last = len(keys["MB_out_channels"]) - 1
    found = {}
    for name, dimension in _DIMENSIONS.items():
        for index, key in enumerate(keys[name]):
            inside = f"layers.{index}.{dimension}"
            if dimension == "out_channels" and index in (0, last):
                inside = "last_channels" if index else "first_channels"
            elif dimension == "expand_ratio" and index == last:
                inside = "last_expand_ratio"
            found[inside] = key or f"{name}.{index}"
    return found
