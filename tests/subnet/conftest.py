from __future__ import annotations

import random
import zlib

import pytest
import torch

from razordeploy.subnet.mutators.channel import ChannelMutator

from .nets import ConvNet


@pytest.fixture(autouse=True)
def seed(request):
    value = zlib.crc32(request.node.name.encode())
    random.seed(value)
    torch.manual_seed(value)


@pytest.fixture(scope="session")
def template():
    """The channels of every unit of ConvNet: traced once for all tests."""
    mutator = ChannelMutator(parse_cfg={"type": "ChannelAnalyzer", "demo_input": (2, 3, 8, 8)})
    mutator.prepare_from_supernet(ConvNet())
    return mutator.config_template(with_unit_init_args=True, with_channels=True)


@pytest.fixture
def config(template):
    """A mutator's arguments for ConvNet, of any unit type, without tracing."""

    def make(kind=None, default_args=None, **entries):
        units = {}
        for name, entry in template["channel_unit_cfg"]["units"].items():
            args = {"num_channels": entry["init_args"]["num_channels"], **(default_args or {})}
            given = {"channels": entry["channels"], "init_args": args}
            if "reason" in entry:
                given["reason"] = entry["reason"]
            units[name] = given
        for name, extra in entries.items():
            key = next(key for key in units if key.startswith(f"{name}_("))
            units[key]["init_args"].update(extra)
        cfg = {"units": units} if kind is None else {"type": kind, "units": units}
        return {"channel_unit_cfg": cfg, "parse_cfg": {"type": "Config"}}

    return make
