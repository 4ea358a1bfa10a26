"""Subnet files of mmrazor before 1.0, in today's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from razordeploy.errors import ModelError
from razordeploy.subnet.channel_graph import ChannelGraph

_SECTIONS = {"modules", "channels"}


def modernised(content: Mapping[str, Any]) -> dict[str, Any]:
    """``{"modules": {path: op}, "channels": None}``, or ``{path: op}``, as ``{path: {"chosen": op}}``; anything else as
    it is.

    Raises:
        ModelError: the file also says channels, which went together with a pruner of that time.
    """
    if content and all(isinstance(value, str) for value in content.values()):
        return {str(path): {"chosen": chosen} for path, chosen in content.items()}
    modules = content.get("modules")
    if not set(content) <= _SECTIONS or not isinstance(modules, Mapping):
        return dict(content)
    if content.get("channels"):
        raise ModelError(
            "the subnet has both 'modules' and 'channels' in the form of mmrazor 0.x, which cannot be told apart here",
            hint="write the channels as a file of their own: {'unit name': channels}",
        )
    return {str(path): {"chosen": chosen} for path, chosen in modules.items()}


def is_of_layers(content: Mapping[str, Any]) -> bool:
    """Tell whether a file names the width of every layer, as the published AutoSlim subnets do."""
    return bool(content) and all(isinstance(v, Mapping) and "raw_out_channels" in v for v in content.values())


def widths_of_layers(graph: ChannelGraph, content: Mapping[str, Any], model: str) -> dict[str, list[int]]:
    """Positions that stay by unit: the first ``out_channels`` of each layer, as those subnets were trained.

    Raises:
        ModelError: a layer is not in the model, has another width there, or layers of one unit differ.
    """
    kept: dict[str, list[int]] = {}
    used: set[str] = set()
    for name, unit in graph.units.items():
        found: dict[str, int] = {}
        for member in unit.outputs():
            entry = content.get(member.module)
            if entry is not None and int(entry["raw_out_channels"]) == unit.channels:
                used.add(member.module)
                found[member.module] = int(entry["out_channels"])
        if len(set(found.values())) > 1:
            raise ModelError(f"the subnet gives different widths to layers that are added up: {found}")
        width = next(iter(found.values()), unit.channels)
        if not 1 <= width <= unit.channels:
            raise ModelError(f"the subnet gives '{next(iter(found))}' {width} of {unit.channels} channels")
        if width < unit.channels:
            kept[name] = list(range(width))
    missing = [path for path, entry in content.items() if path not in used and _is_narrower(entry)]
    if missing:
        raise ModelError(
            f"the subnet narrows '{missing[0]}', which {model} has not, or not with "
            f"{content[missing[0]]['raw_out_channels']} channels: it is of another model or of another width"
        )
    if not kept and any(map(_is_narrower, content.values())):
        raise ModelError(f"the subnet fits no layer of {model}: it is of another width")
    return kept


def _is_narrower(entry: Mapping[str, Any]) -> bool:
    return int(entry["out_channels"]) < int(entry["raw_out_channels"])
