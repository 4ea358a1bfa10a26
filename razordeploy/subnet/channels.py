"""Subnets of plain models as a channel mutator's template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from razordeploy.errors import ModelError
from razordeploy.subnet.fix import check_units, is_of_widths
from razordeploy.subnet.fix_mutables import is_of_mutables
from razordeploy.subnet.mutators.channel import ChannelMutator

UNIT = "L1MutableChannelUnit"
"""Class of the units of a model that no algorithm prunes: the channels of the largest filters stay."""


def units_of(model: nn.Module, example_inputs: Any, *, choice_mode: str = "ratio") -> ChannelMutator:
    """A mutator that knows the channel units of ``model``, which stays as it is.

    Raises:
        ModelError: the model cannot be captured.
    """
    inputs = tuple(example_inputs) if isinstance(example_inputs, list | tuple) else (example_inputs,)
    mutator = ChannelMutator(
        {"type": UNIT, "default_args": {"choice_mode": choice_mode}},
        {"type": "ChannelAnalyzer", "demo_input": inputs, "tracer_type": "BackwardTracer"},
    )
    mutator.inspect(model)
    return mutator


def with_channels(model: nn.Module, subnet: Mapping[str, Any], example_inputs: Any) -> dict[str, Any]:
    """``subnet`` with the layers of each unit, so that loading it needs no tracing.

    Args:
        model: the whole model.
        subnet: widths by unit, or a template.
        example_inputs: inputs of the model.

    Raises:
        ModelError: it is of mutables, which have no channels, or names a unit that cannot stand in a template.
    """
    if is_of_mutables(subnet):
        raise ModelError("a subnet of mutables has no channel units to export", hint="leave out --export-channel")
    widths = subnet if is_of_widths(subnet) else _choices(subnet)
    mutator = units_of(model, example_inputs, choice_mode="number")
    if mutator.graph is not None:
        check_units(mutator.graph, [name for name in widths if name not in mutator._names()], type(model).__name__)
    for name, width in widths.items():
        mutator.unit(name).current_choice = width
    template = mutator.config_template(with_unit_init_args=True, with_channels=True)
    if "channel_unit_cfg" in subnet:
        # Which channels stay is the matter of the unit's class.
        template["type"] = subnet.get("type", template["type"])
        template["channel_unit_cfg"]["type"] = subnet["channel_unit_cfg"].get("type", UNIT)
        given = subnet["channel_unit_cfg"].get("units", {})
        for name, entry in template["channel_unit_cfg"]["units"].items():
            if "init_args" in given.get(name, {}):
                entry["init_args"] = given[name]["init_args"]
            if "choice" in given.get(name, {}):
                entry["choice"] = given[name]["choice"]
        template["channel_unit_cfg"]["default_args"] = subnet["channel_unit_cfg"].get("default_args", {})
    return template


def _choices(subnet: Mapping[str, Any]) -> dict[str, Any]:
    units = subnet.get("channel_unit_cfg", {}).get("units", subnet)
    return {name: entry["choice"] for name, entry in units.items() if "choice" in entry}
