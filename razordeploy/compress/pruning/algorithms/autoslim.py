"""AutoSlim: one supernet of all widths, slimmed greedily afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from razordeploy.compress.algorithm.sandwich import Subnet, sandwich_step
from razordeploy.compress.pruning.algorithms.base import PruningAlgorithm, in_place_distiller, one_of
from razordeploy.errors import RecipeError
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.pruners import OneShotChannelMutator


class AutoSlim(PruningAlgorithm):
    """Trains the largest, the smallest and random subnets in every step (Yu and Huang 2019, arXiv 1903.11728).

    Greedy slimming chooses subnets of the trained supernet: ``AutoSlimGreedySearchLoop`` or ``greedy_slimming``.

    Args:
        architecture: the supernet, at its full width.
        mutator: config of a ``OneShotChannelMutator``.
        distiller: between the largest subnet and the others; None: all learn from the labels.
        num_random_samples: random subnets in a step.
        data_preprocessor: of the batches; None: the architecture's own.
        num_samples: another name of ``num_random_samples``.
        init_cfg: see ``PruningAlgorithm``.
    """

    mutator_type: ClassVar[type[ChannelMutator]] = OneShotChannelMutator
    decides: ClassVar[bool] = False

    def __init__(
        self,
        architecture: Any,
        mutator: Any = None,
        distiller: Any = None,
        num_random_samples: int | None = None,
        data_preprocessor: Any = None,
        num_samples: int | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(architecture, mutator, data_preprocessor, init_cfg)
        given = one_of(num_random_samples, num_samples, ("num_random_samples", "num_samples"))
        self.num_random_samples = 2 if given is None else given
        if isinstance(self.num_random_samples, bool) or self.num_random_samples < 0:
            raise RecipeError(f"AutoSlim: expected num_random_samples of 0 or more, got {given!r}")
        self.distiller = in_place_distiller(distiller, self)

    def subnets(self) -> list[Subnet]:
        """The sandwich of one step: the largest, random ones, the smallest."""
        random = [(f"random_subnet_{i}", self._set_random) for i in range(self.num_random_samples)]
        mutator = self.mutator
        return [("max_subnet", mutator.set_max_choices), *random, ("min_subnet", mutator.set_min_choices)]

    def _set_random(self) -> None:
        self.mutator.set_choices(self.mutator.sample_choices())

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """Train all subnets of ``subnets()`` on one batch, with one step."""
        return sandwich_step(self, data, optim_wrapper, self.subnets(), self.distiller)

    def settle(self) -> None:
        """Run at full width again."""
        self.mutator.set_max_choices()
