"""Slimmable networks: several widths that share weights, each with norms of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from razordeploy.compress.algorithm.build_model import beside
from razordeploy.compress.algorithm.sandwich import sandwich_step
from razordeploy.compress.pruning.algorithms.base import PruningAlgorithm, in_place_distiller
from razordeploy.errors import RecipeError
from razordeploy.subnet.files import read_mapping
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.pruners import SlimmableChannelMutator


class SlimmableNetwork(PruningAlgorithm):
    """Trains fixed subnets together, in every step each on the same batch (Yu et al. 2019, arXiv 1812.08928).

    Args:
        architecture: the supernet, at its full width.
        mutator: config of a ``SlimmableChannelMutator``; its units' ``candidate_choices`` are the subnets, unless
            ``channel_cfg_paths`` says so.
        channel_cfg_paths: a subnet file each, as greedy slimming writes them.
        deploy_index: train this subnet alone; -1: all.
        distiller: from the widest subnet to the others; None: all learn from the labels, as in the paper.
        data_preprocessor: of the batches; None: the architecture's own.
        init_cfg: see ``PruningAlgorithm``.
    """

    mutator_type: ClassVar[type[ChannelMutator]] = SlimmableChannelMutator
    decides: ClassVar[bool] = False

    def __init__(
        self,
        architecture: Any,
        mutator: Any = None,
        channel_cfg_paths: str | Sequence[str] | None = None,
        deploy_index: int = -1,
        distiller: Any = None,
        data_preprocessor: Any = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        if channel_cfg_paths is not None:
            if mutator is not None and not isinstance(mutator, Mapping):
                raise RecipeError("channel_cfg_paths goes with the config of a mutator, not with a mutator")
            paths = [channel_cfg_paths] if isinstance(channel_cfg_paths, str | Path) else list(channel_cfg_paths)
            mutator = with_candidates(mutator or {}, [read_subnet(path) for path in paths])
        super().__init__(architecture, mutator, data_preprocessor, init_cfg)
        count = len(self.mutator.subnets)
        if isinstance(deploy_index, bool) or not -1 <= deploy_index < count:
            raise RecipeError(f"SlimmableNetwork: expected a deploy_index from -1 to {count - 1}, got {deploy_index!r}")
        self.deploy_index = deploy_index
        self.distiller = in_place_distiller(distiller, self)
        if deploy_index >= 0:
            self.mutator.switch(deploy_index)

    @property
    def trained(self) -> list[int]:
        """The subnets that are trained, by index, the one that costs most first."""
        if self.deploy_index >= 0:
            return [self.deploy_index]
        subnets = self.mutator.subnets
        widths = [sum(self.mutator.unit(name).number_of(c) for name, c in subnet.items()) for subnet in subnets]
        return sorted(range(len(subnets)), key=lambda index: -widths[index])

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """Train all subnets on one batch, with one step."""
        subnets = [(f"subnet_{index}", partial(self.mutator.switch, index)) for index in self.trained]
        return sandwich_step(self, data, optim_wrapper, subnets, self.distiller)

    def settle(self) -> None:
        """Run as the subnet that was trained alone, or as the widest."""
        self.mutator.switch(self.trained[0])


def read_subnet(path: str | Path) -> dict[str, int | float]:
    """Choice by unit, of any subnet file of a channel mutator.

    Raises:
        ModelError: it cannot be read.
        RecipeError: it holds no choices.
    """
    content = read_mapping(beside(str(path)))
    units = content.get("channel_unit_cfg", {}).get("units", content)
    found = {}
    for name, entry in units.items():
        choice = entry.get("choice", entry.get("chosen")) if isinstance(entry, Mapping) else entry
        if isinstance(choice, bool) or not isinstance(choice, int | float):
            raise RecipeError(f"'{path}': expected a number or ratio of channels for '{name}', got {choice!r}")
        found[str(name)] = choice
    return found


def with_candidates(mutator: Mapping[str, Any], subnets: Sequence[Mapping[str, int | float]]) -> dict[str, Any]:
    """The config of a mutator whose subnets are ``subnets``: choice by unit.

    Raises:
        RecipeError: there are none, or they are of different units.
    """
    if not subnets or any(subnet.keys() != subnets[0].keys() for subnet in subnets):
        raise RecipeError("channel_cfg_paths: expected one or more subnets of the same units")
    config = copy.deepcopy(dict(mutator))
    unit = dict(config.get("channel_unit_cfg") or {})
    entries = {}
    for name in subnets[0]:
        choices = [subnet[name] for subnet in subnets]
        ratios = any(isinstance(choice, float) for choice in choices)
        arguments = {
            "candidate_choices": [float(c) for c in choices] if ratios else choices,
            "choice_mode": "ratio" if ratios else "number",
        }
        entries[name] = {"init_args": arguments}
    unit["units"] = entries
    config["channel_unit_cfg"] = unit
    return config
