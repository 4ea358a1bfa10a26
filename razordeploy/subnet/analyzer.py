"""The units of a model as configs: mmrazor's ``ChannelAnalyzer``."""

from __future__ import annotations

from typing import Any

from torch import nn

from razordeploy.errors import ModelError
from razordeploy.subnet.channel_graph import channel_graph
from razordeploy.subnet.mutators.find_units import UnitConfig, traced_units
from razordeploy.subnet.mutators.parse import example_inputs, read_parse_cfg
from razordeploy.subnet.units.sequential import SequentialMutableChannelUnit


class ChannelAnalyzer:
    """Finds channel units without changing the model.

    Args:
        demo_input: shape (N, C, H, W), inputs, or ``dict(type='DefaultDemoInput', input_shape=...)``.
        tracer_type: ``BackwardTracer`` or ``FxTracer``: one tracer here.
    """

    def __init__(self, demo_input: Any = (1, 3, 224, 224), tracer_type: str = "BackwardTracer") -> None:
        self.parse = read_parse_cfg({"type": "ChannelAnalyzer", "demo_input": demo_input, "tracer_type": tracer_type})

    def analyze(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        """``init_args``, ``channels`` and, where it has to stay whole, ``reason`` of each unit, by name.

        Raises:
            ModelError: the model cannot be captured.
        """
        inputs = example_inputs(self.parse, model)
        if inputs is None:
            raise ModelError("a ChannelAnalyzer needs a demo_input", hint="such as (1, 3, 224, 224)")
        config = UnitConfig(kind=SequentialMutableChannelUnit, default_args={}, entries={})
        units = traced_units(model, channel_graph(model, inputs), config)
        found = {}
        for unit in units:
            template = unit.config_template(with_channels=True)
            del template["choice"]
            found[unit.name] = {"init_args": {"num_channels": unit.num_channels}, **template}
        return found


TASK_UTILS: dict[str, type[ChannelAnalyzer]] = {"ChannelAnalyzer": ChannelAnalyzer}
"""The tools that a config may name."""
