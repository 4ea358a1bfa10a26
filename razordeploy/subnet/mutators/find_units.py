"""The channel units of a model: traced, from a config, or from the channel mutables it has."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from razordeploy.errors import ModelError, nearest
from razordeploy.subnet.channel_graph import ChannelGraph
from razordeploy.subnet.files import read_mapping
from razordeploy.subnet.units.channel import channels_of
from razordeploy.subnet.units.conversion import layer_paths
from razordeploy.subnet.units.mutable_unit import MutableChannelUnit
from razordeploy.subnet.units.table import UNITS

_KEYS = ("type", "_scope_", "default_args", "units")
_ENTRY_KEYS = ("init_args", "choice", "channels", "reason")
_FACTOR = "it is a factor of channels that are pruned whole"


@dataclass(frozen=True, kw_only=True)
class UnitConfig:
    """A ``channel_unit_cfg``, read."""

    kind: type[MutableChannelUnit]
    """Class of the units."""
    default_args: Mapping[str, Any]
    """Arguments of every unit."""
    entries: Mapping[str, Mapping[str, Any]]
    """By name: ``init_args``, ``choice``, ``channels`` and ``reason`` of one unit, all of them optional."""

    @property
    def has_all_channels(self) -> bool:
        """True where nothing needs to be traced."""
        return bool(self.entries) and all("channels" in entry for entry in self.entries.values())

    def args(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of one unit."""
        return {**self.default_args, **entry.get("init_args", {})}


def read_unit_cfg(given: Any, default: type[MutableChannelUnit]) -> UnitConfig:
    """Read a ``channel_unit_cfg``: a dict, a unit class or its name, or None.

    Raises:
        ModelError: an unknown key or unit class, or units that are no mapping.
    """
    if given is None or isinstance(given, type) and issubclass(given, MutableChannelUnit):
        return UnitConfig(kind=given or default, default_args={}, entries={})
    if isinstance(given, str):
        given = {"type": given}
    if not isinstance(given, Mapping):
        raise ModelError(f"expected channel_unit_cfg to be a dict, a unit class or its name, got {given!r}")
    for key in given:
        if key not in _KEYS:
            raise ModelError(f"unknown key '{key}' in channel_unit_cfg", hint=nearest(str(key), _KEYS))
    kind = given.get("type", default)
    if isinstance(kind, str):
        bare = kind.rpartition(".")[2]
        if bare not in UNITS:
            raise ModelError(f"unknown channel unit '{kind}'", hint=nearest(bare, UNITS))
        kind = UNITS[bare]
    units = given.get("units") or {}
    entries = read_mapping(units) if isinstance(units, str | Path) else units
    return UnitConfig(kind=kind, default_args=dict(given.get("default_args") or {}), entries=_checked(entries))


def _checked(units: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(units, Mapping):
        raise ModelError(f"expected 'units' to map names to dicts, got {type(units).__name__}")
    for name, entry in units.items():
        if not isinstance(entry, Mapping):
            raise ModelError(f"expected a dict for the unit '{name}', got {entry!r}")
        for key in entry:
            if key not in _ENTRY_KEYS:
                raise ModelError(f"unknown key '{key}' in the unit '{name}'", hint=nearest(str(key), _ENTRY_KEYS))
    return {str(name): copy.deepcopy(dict(entry)) for name, entry in units.items()}


def traced_units(supernet: nn.Module, graph: ChannelGraph, config: UnitConfig) -> list[MutableChannelUnit]:
    """The units of ``graph``, those that the config names with its arguments and choices.

    Raises:
        ModelError: the config names a unit that the model has not, or has with another width.
    """
    layers = layer_paths(supernet)
    units = []
    for traced in graph.units.values():
        unit = config.kind.build({**config.default_args, "num_channels": traced.channels})
        unit.name = traced.name
        for channel in channels_of(traced, supernet, layers):
            unit.add(channel)
        unit.reason = traced.reason or (None if traced.primary else _FACTOR)
        units.append(unit)
    places = {alias: at for at, unit in enumerate(units) for alias in reversed(unit.aliases())}
    places |= {unit.name: at for at, unit in enumerate(units)}
    for name, entry in config.entries.items():
        if name not in places:
            raise ModelError(
                f"the config has a unit '{name}', which the model has not: "
                "it is of another model, or the model has changed since",
                hint=nearest(name, places),
            )
        units[places[name]] = _configured(units[places[name]], name, entry, config)
    return units


def _configured(
    unit: MutableChannelUnit, name: str, entry: Mapping[str, Any], config: UnitConfig
) -> MutableChannelUnit:
    args = config.args(entry)
    if args.setdefault("num_channels", unit.num_channels) != unit.num_channels:
        raise ModelError(
            f"unit '{name}' has {args['num_channels']} channels in the config and {unit.num_channels} in the model: "
            "the config is of another width"
        )
    new = config.kind.build(args)
    new.name, new.reason = name, unit.reason
    for channel in unit.channels:
        new.add(channel)
    if "choice" in entry:
        new.current_choice = entry["choice"]
    return new


def configured_units(supernet: nn.Module, config: UnitConfig) -> list[MutableChannelUnit]:
    """The units that the config describes in full.

    Raises:
        ModelError: a unit has no channels, or the model has not the layers that they name.
    """
    if not config.has_all_channels:
        lacking = next((name for name, entry in config.entries.items() if "channels" not in entry), None)
        problem = f"'{lacking}' has none" if lacking else "there are no units"
        raise ModelError(
            f"parse_cfg type 'Config' needs the channels of every unit, and {problem}",
            hint="write the config with config_template(with_channels=True), or use type 'ChannelAnalyzer'",
        )
    units = []
    for name, entry in config.entries.items():
        unit = config.kind.init_from_cfg(supernet, {**entry, "init_args": config.args(entry)})
        unit.name = name
        units.append(unit)
    return units


def predefined_units(supernet: nn.Module, config: UnitConfig) -> list[MutableChannelUnit]:
    """A unit for each channel mutable of the model.

    Raises:
        ModelError: it has none.
    """
    units = config.kind.init_from_predefined_model(supernet)
    if not units:
        raise ModelError(
            f"{type(supernet).__name__} has no channel mutables of its own, as parse_cfg type 'Predefined' says",
            hint="use type 'ChannelAnalyzer'",
        )
    return units
