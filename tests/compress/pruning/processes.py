"""What both the test and its two processes do."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from razordeploy.compress.algorithm.base import Schedule
from razordeploy.compress.pruning.algorithms.table import ALGORITHMS
from razordeploy.train.classifier import ShiftAndFlip
from tests.compress.distill.tiny import images, kd, targets, tiny

FIRST, SECOND = "conv1_(0, 4)_4", "conv2_(0, 8)_8"
RATIOS = {"candidate_choices": [0.25, 0.5, 1.0], "choice_mode": "ratio"}
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "AutoSlim": ("OneShotChannelMutator", "OneShotMutableChannelUnit", RATIOS, {"distiller": kd()}),
    "SlimmableNetwork": ("SlimmableChannelMutator", "SlimmableChannelUnit", RATIOS, {}),
    "DMCP": (
        "DMCPChannelMutator",
        "DMCPChannelUnit",
        {},
        {"distiller": kd(), "arch_start_train": 0, "arch_train_freq": 1, "target_flops": 0.002},
    ),
    "GroupFisherAlgorithm": ("GroupFisherChannelMutator", "GroupFisherChannelUnit", {"mutate_linear": True}, {}),
}
"""Algorithm -> mutator, unit, arguments of units, arguments of the algorithm."""


def prepared(name: str, channels: dict[str, Any]) -> Any:
    """The algorithm ``name`` on a tiny model."""
    mutator, unit, init_args, options = CASES[name]
    units = {}
    for key, entry in channels.items():
        given = {} if "reason" in entry else init_args
        units[key] = {**entry, "init_args": {"num_channels": int(key.rpartition("_")[2]), **given}}
    parse = {"type": "ChannelAnalyzer", "demo_input": (1, 1, 8, 8)}
    config: dict[str, Any] = {"type": mutator, "channel_unit_cfg": {"type": unit, "units": units}, "parse_cfg": parse}
    if name == "DMCP":
        # By default a group is a twentieth of the channels, and here are fewer.
        config["pruning_cfg"] = (0.25, 1.0, 0.25)
    algorithm = ALGORITHMS[name](tiny(), mutator=config, data_preprocessor=ShiftAndFlip(), **options)
    algorithm.schedule = Schedule(iteration=0, epoch_length=4)
    return algorithm.train()


def gradients_of_step(runs: Any, algorithm: Any, rank: int) -> dict[str, Any]:
    """What one step of ``runs`` on half of a batch does: gradients, subnets, recorded information."""
    gradients: dict[str, torch.Tensor] = {}
    subnets: list[dict[str, int]] = []

    def wrapper(module: nn.Module) -> OptimWrapper:
        found = OptimWrapper(torch.optim.SGD(module.parameters(), 0.0))

        def step() -> None:
            gradients.update({k: p.grad.clone() for k, p in algorithm.named_parameters() if p.grad is not None})

        found.step = step
        return found

    def note(module: nn.Module, inputs: Any) -> None:
        subnets.append({unit.name: unit.mutable_channel.activated_channels for unit in algorithm.mutator.mutable_units})

    handle = algorithm.architecture.register_forward_pre_hook(note)
    if type(algorithm).__name__ == "DMCP":
        wrappers: Any = OptimWrapperDict(
            architecture=wrapper(algorithm.architecture), mutator=wrapper(algorithm.mutator)
        )
    else:
        wrappers = wrapper(algorithm)
    half = slice(rank * 4, rank * 4 + 4)
    runs.train_step((images(8)[half], targets(8)[half]), wrappers)
    handle.remove()
    info = [getattr(unit, "normalized_fisher_info", torch.zeros(0)) for unit in algorithm.mutator.mutable_units]
    return {"gradients": gradients, "subnets": subnets, "info": info}
