"""What pruning algorithms share."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

from razordeploy.compress.algorithm.base import BaseAlgorithm
from razordeploy.compress.algorithm.build import build
from razordeploy.compress.algorithm.weights import initialise
from razordeploy.compress.distill.distillers.build import build_distiller
from razordeploy.compress.distill.distillers.configurable import ConfigurableDistiller
from razordeploy.compress.pruning.costs import ChoiceCosts
from razordeploy.errors import RecipeError
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.table import MUTATORS


class PruningAlgorithm(BaseAlgorithm):
    """A model and the mutator of its channel units, which are found once its weights are there.

    Args:
        architecture: the model to be pruned; see ``build_architecture``.
        mutator: config of a channel mutator, or one that has no supernet yet; None: the algorithm's own.
        data_preprocessor: of the batches; None: the architecture's own.
        init_cfg: mmengine's initialisation config; ``dict(type='Pretrained', checkpoint=...)`` starts from a
            checkpoint of the architecture or of such an algorithm.
    """

    mutator_type: ClassVar[type[ChannelMutator]] = ChannelMutator
    """The mutator that it needs, and the one where the config names none."""
    unit_type: ClassVar[str | None] = None
    """The units where the config names none; None: the mutator's own."""
    decides: ClassVar[bool] = True
    """Whether a structure has been decided when training ends; else there is a supernet to choose from."""

    def __init__(
        self,
        architecture: Any,
        mutator: Any = None,
        data_preprocessor: Any = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(architecture, data_preprocessor)
        initialise(self.architecture, init_cfg)
        self.mutator: Any = self._build_mutator(mutator)
        self.mutator.prepare_from_supernet(self.architecture)
        self._costs: ChoiceCosts | None = None

    def _build_mutator(self, given: Any) -> ChannelMutator:
        if isinstance(given, ChannelMutator):
            mutator = given
        else:
            if given is not None and not isinstance(given, Mapping | str):
                raise RecipeError(f"expected mutator as a dict, got {type(given).__name__}")
            config = {"type": given} if isinstance(given, str) else copy.deepcopy(dict(given or {}))
            config.setdefault("type", self.mutator_type.__name__)
            if self.unit_type is not None:
                unit = config.get("channel_unit_cfg") or {}
                config["channel_unit_cfg"] = {"type": self.unit_type, **unit} if isinstance(unit, Mapping) else unit
            mutator = build(config, MUTATORS, "mutator")
        if not isinstance(mutator, self.mutator_type):
            raise RecipeError(
                f"{type(self).__name__} needs a {self.mutator_type.__name__}, got {type(mutator).__name__}"
            )
        return mutator

    @property
    def costs(self) -> ChoiceCosts:
        """What the mutator's choices cost; counted at the first call."""
        if self._costs is None:
            self._costs = ChoiceCosts(self.architecture, self.mutator)
        return self._costs

    def set_subnet(self, choices: Mapping[str, Any]) -> None:
        """Run at ``choices`` from now on."""
        self.mutator.set_choices(choices)

    def settle(self) -> None:
        """Set the structure that training has decided on; called once, at its end."""


def in_place_distiller(config: Any, algorithm: PruningAlgorithm) -> ConfigurableDistiller | None:
    """A distiller between a supernet and its own largest subnet; None where there is no config.

    Raises:
        RecipeError, ModelError: it does not fit.
    """
    if config is None:
        return None
    distiller = build_distiller(config)
    distiller.prepare_from_teacher(algorithm.architecture)
    distiller.prepare_from_student(algorithm.architecture)
    return distiller


def one_of(first: Any, second: Any, names: tuple[str, str]) -> Any:
    """Whichever of two keywords with one meaning is given.

    Raises:
        RecipeError: both are.
    """
    if first is not None and second is not None:
        raise RecipeError(f"{names[0]} and {names[1]} are two names of one thing: give one")
    return second if first is None else first
