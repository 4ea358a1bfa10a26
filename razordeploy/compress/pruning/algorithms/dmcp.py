"""Differentiable Markov channel pruning."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from razordeploy.compress.algorithm.base import add_prefix
from razordeploy.compress.algorithm.sandwich import Subnet, sandwich_step, without_dropout, without_statistics
from razordeploy.compress.algorithm.step import apply_gradients
from razordeploy.compress.pruning.algorithms.base import PruningAlgorithm, in_place_distiller, one_of
from razordeploy.compress.pruning.algorithms.slimmable import read_subnet
from razordeploy.compress.pruning.flops_loss import FLOPS_LOSSES
from razordeploy.errors import RecipeError, nearest
from razordeploy.subnet.agree import agree
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.dmcp import DMCPChannelMutator

STRATEGY = ("max", "min", "scheduled_random", "arch_random")
_DECAY = 0.9999


class DMCP(PruningAlgorithm):
    """Learns the width of every unit as a Markov process over groups of channels (Guo et al. 2020, arXiv 2005.03354).

    Weights are trained by a sandwich of subnets; every ``arch_train_freq`` steps the architecture parameters take one
    step on the loss of the full model with channels weighed by their probabilities, plus ``flop_loss_weight`` times
    the distance of the expected multiply-adds from the target. The recipe needs an optimizer for ``architecture`` and
    one for ``mutator``: ``optim_wrapper=dict(constructor='SeparateOptimWrapperConstructor', ...)``.

    Args:
        architecture: the model at its full width.
        distiller: between the full model and the subnets; None: all learn from the labels.
        mutator_cfg: config of a ``DMCPChannelMutator``.
        fix_subnet: a subnet file: the weights of that alone are trained, with one optimizer.
        data_preprocessor: of the batches; None: the architecture's own.
        strategy: subnets of a step: ``max``, ``min``, ``arch_random`` (drawn from the process), ``scheduled_random``
            (drawn evenly, and ever more often from the process). Before ``arch_start_train`` all are drawn evenly.
        arch_start_train: steps before the first of the architecture parameters.
        arch_train_freq: steps from one of them to the next.
        distillation_times: steps before distillation starts.
        target_flops: expected multiply-adds to reach, in millions.
        flops_loss_type: one of ``FLOPS_LOSSES``.
        flop_loss_weight: see above.
        mutator: another name of ``mutator_cfg``.
        init_cfg: see ``PruningAlgorithm``.
    """

    mutator_type: ClassVar[type[ChannelMutator]] = DMCPChannelMutator

    def __init__(
        self,
        architecture: Any,
        distiller: Any = None,
        mutator_cfg: Any = None,
        fix_subnet: str | Mapping[str, Any] | None = None,
        data_preprocessor: Any = None,
        strategy: Sequence[str] = STRATEGY,
        arch_start_train: int = 10000,
        arch_train_freq: int = 500,
        distillation_times: int = 2000,
        target_flops: float = 150.0,
        flops_loss_type: str = "log_l1",
        flop_loss_weight: float = 1.0,
        mutator: Any = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        chosen = one_of(mutator_cfg, mutator, ("mutator_cfg", "mutator"))
        super().__init__(architecture, chosen, data_preprocessor, init_cfg)
        for kind in strategy:
            if kind not in STRATEGY:
                raise RecipeError(f"DMCP: unknown strategy '{kind}'", hint=nearest(str(kind), STRATEGY))
        if not strategy or strategy[0] != "max":
            raise RecipeError(f"DMCP: expected a strategy that begins with 'max', got {list(strategy)}")
        if flops_loss_type not in FLOPS_LOSSES:
            hint = nearest(flops_loss_type, FLOPS_LOSSES)
            raise RecipeError(f"DMCP: unknown flops_loss_type '{flops_loss_type}'", hint=hint)
        if not target_flops > 0 or arch_train_freq < 1:
            raise RecipeError(
                f"DMCP: expected target_flops above 0 and arch_train_freq of at least 1, got {target_flops} and "
                f"{arch_train_freq}"
            )
        self.strategy = list(strategy)
        self.arch_start_train = arch_start_train
        self.arch_train_freq = arch_train_freq
        self.distillation_times = distillation_times
        self.target_flops = float(target_flops)
        self.flops_loss_type = flops_loss_type
        self.flop_loss_weight = flop_loss_weight
        self.distiller = in_place_distiller(distiller, self)
        self.is_supernet = fix_subnet is None
        if fix_subnet is not None:
            choices = fix_subnet if isinstance(fix_subnet, Mapping) else read_subnet(fix_subnet)
            self.mutator.set_choices(choices)
            self.mutator.requires_grad_(False)

    @property
    def arch_train(self) -> bool:
        """Whether the architecture parameters are trained by now."""
        return self.is_supernet and self.schedule.iteration >= self.arch_start_train

    @property
    def sample_probability(self) -> float:
        """Probability that ``scheduled_random`` draws evenly: it falls with every step, in a resumed run too."""
        return float(_DECAY**self.schedule.iteration)

    def set_subnet(self, choices: Mapping[str, Any] | str, arch_train: bool = False) -> None:
        """Run at ``choices``, or at a mode of ``DMCPChannelMutator.sample_subnet``."""
        if isinstance(choices, str):
            self.mutator.sample_subnet(choices, arch_train)
        else:
            super().set_subnet(choices)

    def subnets(self) -> list[Subnet]:
        """The sandwich of one step."""
        return [(f"{kind}_subnet_{i}", partial(self._set, kind)) for i, kind in enumerate(self.strategy)]

    def _set(self, kind: str) -> None:
        if kind not in ("max", "min"):
            scheduled = kind == "scheduled_random" and agree(random.random) <= self.sample_probability
            kind = "direct" if self.arch_train and not scheduled else "random"
        self.set_subnet(kind)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """One step of the weights and, when it is due, one of the architecture parameters.

        Raises:
            RecipeError: there is one optimizer for both.
        """
        if not self.is_supernet:
            return self._one_subnet(data, optim_wrapper)
        weights, arch = _optimizers(optim_wrapper)
        distil = self.schedule.iteration >= self.distillation_times
        self.mutator.requires_grad_(False)
        log = sandwich_step(self, data, weights, self.subnets(), self.distiller, distil=distil)
        self.mutator.requires_grad_(True)
        if self.arch_train and (self.schedule.iteration - self.arch_start_train) % self.arch_train_freq == 0:
            log.update(self.update_arch_params(data, arch))
        return log

    def _one_subnet(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        with optim_wrapper.optim_context(self):
            losses = self._run_forward(self.data_preprocessor(data, True), mode="loss")
        total, log = self.parse_losses(losses)
        optim_wrapper.backward(total)
        apply_gradients(optim_wrapper)
        return dict(log)

    def update_arch_params(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """One step of the architecture parameters; weights and statistics stay.

        Returns:
            ``arch.*``: losses of the weighed model; ``flops.loss``, and ``expected_flops`` in millions.
        """
        self.set_subnet("max", arch_train=True)
        trained = [p for p in self.architecture.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            batch = self.data_preprocessor(data, True)
            with (
                optim_wrapper.optim_context(self),
                without_dropout(self.architecture),
                without_statistics(self.architecture),
            ):
                losses = self._run_forward(batch, mode="loss")
            total, log = self.parse_losses(losses)
            flops, loss = self.flops_loss()
            optim_wrapper.backward(total + loss.to(total))
            apply_gradients(optim_wrapper)
            self._project()
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
            self.mutator.modify_supernet_forward(arch_train=False)
        return {**add_prefix(log, "arch"), "flops.loss": loss.detach(), "expected_flops": flops.detach()}

    @torch.no_grad()
    def _project(self) -> None:
        # Below zero a group is kept for sure and has no gradient: it would never come back.
        for parameter in self.mutator.arch_params.values():
            parameter.clamp_(min=0.0)

    def flops_loss(self) -> tuple[Tensor, Tensor]:
        """Expected multiply-adds in millions, and the weighed loss of their distance from the target."""
        flops = self.costs.expected_mega_macs(self.mutator.expected_channels())
        return flops, self.flop_loss_weight * FLOPS_LOSSES[self.flops_loss_type](flops, self.target_flops)

    def settle(self) -> None:
        """Take the mean of every process, rounded to whole channels."""
        if self.is_supernet:
            self.set_subnet("expected")


def _optimizers(optim_wrapper: Any) -> tuple[Any, Any]:
    try:
        return optim_wrapper["architecture"], optim_wrapper["mutator"]
    except (KeyError, TypeError, NotImplementedError) as error:
        raise RecipeError(
            "DMCP needs an optimizer for the architecture and one for the mutator",
            hint="optim_wrapper=dict(constructor='SeparateOptimWrapperConstructor', architecture=..., mutator=...)",
        ) from error
