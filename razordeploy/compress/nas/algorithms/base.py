"""What the trainings of supernets share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from razordeploy.compress.algorithm.base import BaseAlgorithm
from razordeploy.compress.algorithm.build import build
from razordeploy.compress.algorithm.step import apply_gradients
from razordeploy.errors import ModelError, RecipeError
from razordeploy.subnet.mutators.nas import NasMutator
from razordeploy.subnet.mutators.table import MUTATORS

S = TypeVar("S", bound="SupernetAlgorithm")
# GML's names for one that draws every subnet anew.
_GML_MUTATORS = {"RandomMutator": NasMutator, "StatelessMutator": NasMutator}


class SupernetAlgorithm(BaseAlgorithm):
    """Holds a supernet and the mutator that samples its subnets.

    Args:
        architecture: the supernet; see ``build_architecture``.
        mutator: ``dict(type='NasMutator', ...)``; None: that.
        norm_training: batch norms use the statistics of the batch in evaluation too.
        data_preprocessor: of the batches; None: the supernet's own.
        init_cfg: mmengine's initialisation.

    Raises:
        RecipeError: the mutator is none of supernets.
        ModelError: the supernet has nothing to choose.
    """

    decides_subnet = False
    """Whether the training itself chooses a subnet, which is then written beside the weights."""

    def __init__(
        self,
        architecture: Any,
        mutator: Any = None,
        norm_training: bool = False,
        data_preprocessor: Any = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(architecture, data_preprocessor, init_cfg)
        self.norm_training = norm_training
        self.mutator = build_mutator(mutator)
        self.mutator.prepare_from_supernet(self.architecture)
        if not self.mutator.search_groups:
            raise ModelError(
                f"{type(self).__name__}: the supernet {type(self.architecture).__name__} has nothing to choose",
                hint="give it mutables, such as OneShotMutableOP",
            )

    def train(self: S, mode: bool = True) -> S:
        """With ``norm_training``, batch norms stay in training mode."""
        super().train(mode)
        if self.norm_training and not mode:
            for module in self.architecture.modules():
                if isinstance(module, _BatchNorm):
                    module.training = True
        return self

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """One forward and backward pass; gradients are averaged over all processes before the step."""
        with optim_wrapper.optim_context(self):
            losses = self._run_forward(self.data_preprocessor(data, True), mode="loss")
        total, log = self.parse_losses(losses)
        optim_wrapper.backward(optim_wrapper.scale_loss(total))
        if optim_wrapper.should_update():
            apply_gradients(optim_wrapper)
        return log

    def decide(self) -> dict[str, Any]:
        """The choices that the training arrived at, by search group.

        Raises:
            ModelError: this training leaves the choice to a search (``decides_subnet`` is False).
        """
        raise ModelError(f"{type(self).__name__} decides on no subnet", hint="search its supernet: razordeploy search")


def build_mutator(config: Any) -> NasMutator:
    """Build the mutator of a supernet; None is a plain ``NasMutator``.

    Raises:
        RecipeError: an unknown name or keyword, or a mutator of another kind.
    """
    if isinstance(config, NasMutator):
        return config
    mutator = build(config or {"type": "NasMutator"}, {**MUTATORS, **_GML_MUTATORS}, "mutator")
    if not isinstance(mutator, NasMutator):
        raise RecipeError(
            f"expected the mutator of a supernet, got {type(mutator).__name__}", hint="mutator=dict(type='NasMutator')"
        )
    return mutator


def in_architecture(module: nn.Module, kind: type) -> list[Any]:
    """The submodules of ``module`` that are of ``kind``."""
    return [part for part in module.modules() if isinstance(part, kind)]
