"""Search and training at once, one path at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from mmengine.logging import MessageHub
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from razordeploy.compress.algorithm.step import apply_gradients
from razordeploy.compress.nas.algorithms.base import SupernetAlgorithm
from razordeploy.compress.nas.algorithms.darts import two_optimizers
from razordeploy.errors import RecipeError
from razordeploy.subnet.mutables.diff_module import OneHotMutableOP

D = TypeVar("D", bound="DSNAS")


class DSNAS(SupernetAlgorithm):
    """Draws one operation on every edge and learns what to draw (DSNAS, Hu et al. 2020, arXiv 2002.09128).

    The gradient of an edge's architecture parameters is that of the logarithm of the probability of what was drawn,
    times the gradient of the loss by its weight of one (equation 10).

    Args:
        architecture: as of ``SupernetAlgorithm``, and so are ``mutator``, ``norm_training``, ``data_preprocessor`` and
            ``init_cfg``; its mutables are ``OneHotMutableOP``.
        mutator: see there.
        pretrain_epochs: the architecture parameters rest so long, and paths are drawn uniformly.
        finetune_epochs: from this epoch on the most probable path alone is trained.
        flops_constraints: millions of multiply-accumulates that the expected ones of all edges should not exceed; 0: no
            limit.
        flops_weight: of the penalty, which is the share by which they do.
        estimator_cfg: ``dict(input_shape=(1, 3, 224, 224))``, what the multiply-accumulates are counted at.
        norm_training: see there.
        data_preprocessor: see there.
        init_cfg: see there.

    Raises:
        RecipeError: a limit without ``estimator_cfg.input_shape``, or epochs in the wrong order.
    """

    decides_subnet = True
    costs: dict[str, Tensor]

    def __init__(
        self,
        architecture: Any,
        mutator: Any = None,
        pretrain_epochs: int = 0,
        finetune_epochs: int = 80,
        flops_constraints: float = 0.0,
        flops_weight: float = 1.0,
        estimator_cfg: Mapping[str, Any] | None = None,
        norm_training: bool = False,
        data_preprocessor: Any = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(architecture, mutator, norm_training, data_preprocessor, init_cfg)
        if not 0 <= pretrain_epochs <= finetune_epochs:
            raise RecipeError(
                f"DSNAS: expected 0 <= pretrain_epochs <= finetune_epochs, got {pretrain_epochs} and {finetune_epochs}"
            )
        self.mutator.prepare_arch_params()
        self.pretrain_epochs, self.finetune_epochs = pretrain_epochs, finetune_epochs
        self.flops_constraints, self.flops_weight = flops_constraints, flops_weight
        self.costs = {}
        if flops_constraints:
            shape = (estimator_cfg or {}).get("input_shape")
            if shape is None:
                raise RecipeError(
                    "DSNAS: flops_constraints needs the shape to count at",
                    hint="estimator_cfg=dict(input_shape=(1, 3, 224, 224))",
                )
            self.costs = self._count(tuple(shape))

    @property
    def edges(self) -> dict[str, OneHotMutableOP]:
        """The first member of each group of one-hot choices, by group."""
        groups = self.mutator.search_groups
        return {name: members[0] for name, members in groups.items() if isinstance(members[0], OneHotMutableOP)}

    def train(self: D, mode: bool = True) -> D:
        """In evaluation the most probable path runs."""
        super().train(mode)
        self._set_greedy(not mode)
        return self

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """One step of the weights on the path drawn and, between the two epochs, one of the architecture parameters."""
        weights, arch = two_optimizers(optim_wrapper)
        epoch = int(MessageHub.get_current_instance().get_info("epoch") or 0)
        self._set_greedy(epoch >= self.finetune_epochs)
        learns = self.pretrain_epochs <= epoch < self.finetune_epochs
        batch = self.data_preprocessor(data, True)
        for parameter in self.mutator.parameters():
            parameter.requires_grad_(learns)
        with weights.optim_context(self):
            total, log = self.parse_losses(self._run_forward(batch, mode="loss"))
        weights.backward(total)
        arch.zero_grad()
        if learns:
            named = self.mutator_loss(float(_scale(weights)))
            loss, found = self.parse_losses(named)
            arch.backward(loss)
            log.update(found)
        # Without gradients this moves nothing; schedules count steps.
        apply_gradients(arch)
        apply_gradients(weights)
        return log

    def mutator_loss(self, scale: float = 1.0) -> dict[str, Tensor]:
        """What the architecture parameters minimise, once the supernet's backward pass is done.

        Args:
            scale: what mixed precision has multiplied the gradients by.
        """
        losses: list[Tensor] = []
        for name, members in self.mutator.search_groups.items():
            parameter = self.mutator.arch_param_of(name)
            for member in members:
                weights = getattr(member, "arch_weights", None)
                if parameter is None or weights is None or weights.grad is None:
                    continue
                score = (weights.grad * weights.detach()).sum() / scale
                losses.append((functional.log_softmax(parameter, -1) * weights.detach()).sum() * score)
        named = {"loss_arch": torch.stack(losses).sum()}
        if self.flops_constraints:
            excess = self.expected_flops() / self.flops_constraints - 1.0
            named["loss_flops"] = self.flops_weight * functional.relu(excess)
        return named

    def expected_flops(self) -> Tensor:
        """Millions of multiply-accumulates of the edges, weighted by their probabilities."""
        parts = []
        for name, cost in self.costs.items():
            parameter = self.mutator.arch_param_of(name)
            if parameter is not None:
                parts.append((functional.softmax(parameter, -1) * cost.to(parameter)).sum())
        return torch.stack(parts).sum()

    def decide(self) -> dict[str, Any]:
        """The most probable operation of each edge."""
        return self.mutator.sample_choices()

    def _set_greedy(self, greedy: bool) -> None:
        for part in self.architecture.modules():
            if isinstance(part, OneHotMutableOP):
                part.greedy = greedy

    def _count(self, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Millions of multiply-accumulates of each operation of each edge, on one forward pass of ``shape``."""
        inputs: dict[str, Any] = {}
        handles = [
            member.register_forward_pre_hook(lambda _, args, name=name: inputs.setdefault(name, args[0]))
            for name, member in self.edges.items()
        ]
        was_training = self.architecture.training
        try:
            with torch.no_grad():
                self.architecture.eval()(torch.zeros(shape))
        finally:
            self.architecture.train(was_training)
            for handle in handles:
                handle.remove()
        found = {}
        for name, member in self.edges.items():
            row = [_macs(operation, inputs[name]) for operation in member._candidates.values()]
            found[name] = torch.tensor(row) * (len(self.mutator.search_groups[name]) / 1e6)
        return found


def _macs(operation: nn.Module, x: Any) -> float:
    was_training = operation.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        operation.eval()(x)
    operation.train(was_training)
    return counter.get_total_flops() / 2


def _scale(wrapper: Any) -> float:
    scaler = getattr(wrapper, "loss_scaler", None)
    return 1.0 if scaler is None else float(scaler.get_scale())
