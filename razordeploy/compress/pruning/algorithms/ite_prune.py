"""Pruning towards a target while the rest is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from razordeploy.compress.algorithm.base import Losses
from razordeploy.compress.pruning.algorithms.base import PruningAlgorithm, one_of
from razordeploy.compress.pruning.clear import clear_removed
from razordeploy.errors import RecipeError, nearest


class ItePruneAlgorithm(PruningAlgorithm):
    """Prunes in ``prune_times`` steps until each unit has its target; with L1 units, Li et al. 2017 (1608.08710).

    A step comes at the first iterations ``0, step_freq, 2 * step_freq ...`` (or epochs, ``by_epoch``). What is gone
    stays gone: later steps choose among the channels that are left.

    Args:
        architecture: the model to be pruned.
        mutator_cfg: config of a channel mutator.
        data_preprocessor: of the batches; None: the architecture's own.
        target_pruning_ratio: what is kept, as a number of channels or a ratio by unit; one ratio for all units that
            can be pruned; None: what ``choice`` of the mutator's units says.
        step_freq: iterations, or epochs, from one step to the next.
        prune_times: how many steps.
        linear_schedule: step i of n removes i/n of what is to go; False: all of it at the first.
        by_epoch: count epochs.
        mutator: another name of ``mutator_cfg``.
        init_cfg: see ``PruningAlgorithm``.
    """

    default_by_epoch: ClassVar[bool] = False

    def __init__(
        self,
        architecture: Any,
        mutator_cfg: Any = None,
        data_preprocessor: Any = None,
        target_pruning_ratio: Mapping[str, int | float] | float | None = None,
        step_freq: int = 1,
        prune_times: int = 1,
        linear_schedule: bool = True,
        by_epoch: bool | None = None,
        mutator: Any = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        chosen = one_of(mutator_cfg, mutator, ("mutator_cfg", "mutator"))
        super().__init__(architecture, chosen, data_preprocessor, init_cfg)
        for key, value in (("step_freq", step_freq), ("prune_times", prune_times)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise RecipeError(f"{type(self).__name__}: expected {key} of at least 1, got {value!r}")
        self.step_freq = step_freq
        self.prune_times = prune_times
        self.linear_schedule = linear_schedule
        self.by_epoch = self.default_by_epoch if by_epoch is None else by_epoch
        self.target = self._target(target_pruning_ratio)
        self._last = -1
        if target_pruning_ratio is None:
            # The config's own choices are the target; training starts with everything.
            for unit in self.mutator.mutable_units:
                unit.current_choice = unit.max_choice

    def _target(self, given: Mapping[str, int | float] | float | None) -> dict[str, int]:
        """Channels kept at the end, by unit."""
        mutable = {unit.name: unit for unit in self.mutator.mutable_units}
        if given is None:
            return {name: unit.mutable_channel.activated_channels for name, unit in mutable.items()}
        if not isinstance(given, Mapping):
            return {name: unit.number_of(given) for name, unit in mutable.items()}
        target = {}
        for name, choice in given.items():
            unit = self.mutator.unit(name)
            number = unit.number_of(choice)
            if number < unit.num_channels and not unit.is_mutable:
                reason = unit.reason or "nothing makes or reads its channels"
                raise RecipeError(
                    f"target_pruning_ratio: '{name}' cannot be pruned: {reason}", hint=nearest(name, mutable)
                )
            target[unit.name] = number
        return target

    def loss(self, inputs: Tensor, data_samples: Any = None) -> Losses:
        """The architecture's losses, once it is pruned as far as it should be by now."""
        if self.training:
            self.prune_if_due()
        return super().loss(inputs, data_samples)

    def prune_if_due(self) -> None:
        """Prune, if the run is at a step's first iteration or past one that did not happen."""
        done = self.schedule.epoch if self.by_epoch else self.schedule.iteration
        step = min(done // self.step_freq, self.prune_times - 1)
        if step > self._last:
            self._last = step
            self.prune_to(self.choices_at(step))

    def choices_at(self, step: int) -> dict[str, int]:
        """Channels kept from step ``step`` on, counted from 0, by unit."""
        share = (step + 1) / self.prune_times if self.linear_schedule else 1.0
        found = {}
        for name, target in self.target.items():
            unit = self.mutator.unit(name)
            number = math.ceil(unit.num_channels - (unit.num_channels - target) * share - 1e-9)
            found[name] = max(target, unit.allowed_number(number))
        return found

    def prune_to(self, channels: Mapping[str, int]) -> None:
        """Keep ``channels`` by unit, among those that are left.

        A unit that is narrower already, in a run that was resumed, stays as it is.
        """
        clear_removed(self.mutator)
        left = {
            name: number
            for name, number in channels.items()
            if number < self.mutator.unit(name).mutable_channel.activated_channels
        }
        self.mutator.set_choices(left)
        clear_removed(self.mutator)

    def settle(self) -> None:
        """Nothing is left to decide."""
        clear_removed(self.mutator)
