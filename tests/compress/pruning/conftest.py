"""Tiny models with their units, traced once for all tests of the folder."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from razordeploy.compress.algorithm.base import Schedule
from razordeploy.subnet.mutators.channel import ChannelMutator
from tests.compress.distill.tiny import images, targets, tiny


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    value = zlib.crc32(request.node.name.encode())
    random.seed(value)
    torch.manual_seed(value)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def channels() -> dict[str, Any]:
    """The channels of every unit of ``tiny()``."""
    mutator = ChannelMutator(parse_cfg={"type": "ChannelAnalyzer", "demo_input": (1, 1, 8, 8)})
    mutator.prepare_from_supernet(tiny())
    units = mutator.config_template(with_channels=True)["channel_unit_cfg"]["units"]
    return {name: {"channels": entry["channels"], **_reason(entry)} for name, entry in units.items()}


def _reason(entry: dict[str, Any]) -> dict[str, Any]:
    return {"reason": entry["reason"]} if "reason" in entry else {}


@pytest.fixture
def mutator_cfg(channels: dict[str, Any]) -> Any:
    """Config of a mutator for ``tiny()`` that needs no tracing."""

    def make(kind: str, unit: str, init_args: dict[str, Any] | None = None, **extra: Any) -> dict[str, Any]:
        widths = {name: int(name.rpartition("_")[2]) for name in channels}
        units = {}
        for name, entry in channels.items():
            given = {} if "reason" in entry else init_args or {}
            units[name] = {**entry, "init_args": {"num_channels": widths[name], **given}}
        parse = {"type": "ChannelAnalyzer", "demo_input": (1, 1, 8, 8)}
        return {"type": kind, "channel_unit_cfg": {"type": unit, "units": units}, "parse_cfg": parse, **extra}

    return make


def batch(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """What a dataloader of plain samples gives."""
    return images(count), targets(count)


def at(algorithm: Any, iteration: int, epoch: int = 0, epochs: int = 10) -> None:
    """Put the run where the hook would."""
    algorithm.schedule = Schedule(iteration=iteration, epoch=epoch, epoch_length=4, epochs=epochs)
