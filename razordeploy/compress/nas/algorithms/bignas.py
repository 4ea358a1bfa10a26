"""Single-stage training of supernets whose subnets are deployed as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from razordeploy.compress.algorithm.base import Losses, add_prefix, check_losses, disable_inplace
from razordeploy.compress.algorithm.step import apply_gradients
from razordeploy.compress.distill.distillers.build import build_distiller
from razordeploy.compress.nas.algorithms.base import SupernetAlgorithm
from razordeploy.compress.nas.supernets.layers import DropPath
from razordeploy.errors import RecipeError, nearest
from razordeploy.subnet.mutators.base import KINDS

STRATEGIES: dict[str, tuple[str, ...]] = {
    "sandwich2": ("max", "min"),
    "sandwich3": ("max", "random", "min"),
    "sandwich4": ("max", "random", "random", "min"),
    # GML's spelling.
    "sandwish2": ("max", "min"),
    "sandwish3": ("max", "random", "min"),
    "sandwish4": ("max", "random", "random", "min"),
}
"""Subnets of a step by name, in order."""


class BigNAS(SupernetAlgorithm):
    """Trains the largest, the smallest and random subnets in every step (BigNAS, Yu et al. 2020, arXiv 2003.11142).

    The largest learns from the labels, with dropout; the others learn from its outputs, without. The gradients of all
    add up to one step. With ``OFAConv2d`` in the supernet this trains Once-for-All networks (arXiv 1908.09791).

    Args:
        architecture: as of ``SupernetAlgorithm``, and so are ``mutator``, ``norm_training``, ``data_preprocessor`` and
            ``init_cfg``.
        mutator: see there.
        distiller: between the largest subnet, as teacher, and the others; see ``ConfigurableDistiller``. None: the
            others learn from the labels too.
        num_random_samples: random subnets of a step, between the largest and the smallest.
        strategy: in place of that, a name in ``STRATEGIES``, or kinds, ``max`` first: ``('max', 'random', 'min')``.
        drop_path_rate: stochastic depth of the largest subnet in the stages below, where the backbone has
            ``set_dropout``.
        backbone_dropout_stages: stages, from 1.
        norm_training: see there.
        data_preprocessor: see there.
        init_cfg: see there.

    Raises:
        RecipeError: an unknown strategy, or one that does not begin with ``max``.
    """

    def __init__(
        self,
        architecture: Any,
        mutator: Any = None,
        distiller: Any = None,
        num_random_samples: int = 2,
        strategy: str | Sequence[str] | None = None,
        drop_path_rate: float = 0.2,
        backbone_dropout_stages: Sequence[int] = (6, 7),
        norm_training: bool = False,
        data_preprocessor: Any = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(architecture, mutator, norm_training, data_preprocessor, init_cfg)
        self.sample_kinds = _kinds(strategy, num_random_samples)
        self.distiller = None if distiller is None else build_distiller(distiller)
        if self.distiller is not None:
            disable_inplace(self.architecture)
            self.distiller.prepare_from_teacher(self.architecture)
            self.distiller.prepare_from_student(self.architecture)
        backbone: Any = getattr(self.architecture, "backbone", None)
        if callable(getattr(backbone, "set_dropout", None)):
            backbone.set_dropout(tuple(backbone_dropout_stages), drop_path_rate)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """One backward pass for each subnet of the strategy, then one step by the sum of their gradients."""
        batch = self.data_preprocessor(data, True)
        log: dict[str, Tensor] = {}
        with optim_wrapper.optim_context(self):
            for index, kind in enumerate(self.sample_kinds):
                name = kind if kind != "random" else f"{kind}{index}"
                losses = self._max_losses(batch) if index == 0 else self._other_losses(kind, batch)
                total, found = self.parse_losses(add_prefix(losses, name))
                optim_wrapper.backward(total)
                log.update({key: value.detach() for key, value in found.items() if key != "loss"})
                log["loss"] = log["loss"] + total.detach() if "loss" in log else total.detach()
        if self.distiller is not None:
            self.distiller.reset_data_buffer()
        apply_gradients(optim_wrapper)
        return log

    def check_batch(self, data: Any) -> None:
        """Compute the losses of every subnet of one batch as a training step would."""
        batch = self.data_preprocessor(data, True)
        for index, kind in enumerate(self.sample_kinds):
            losses = self._max_losses(batch) if index == 0 else self._other_losses(kind, batch)
            check_losses(self.parse_losses(losses))

    def _max_losses(self, batch: Any) -> Losses:
        self.mutator.set_max_choices()
        recorders = contextlib.nullcontext() if self.distiller is None else self.distiller.teacher_recorders
        with recorders:
            losses: Losses = self._run_forward(batch, mode="loss")
        if self.distiller is not None:
            # The others learn from what it says now: no gradient goes back through it.
            self.distiller.teacher_recorders.detach()
        return losses

    def _other_losses(self, kind: str, batch: Any) -> Losses:
        self.mutator.set_choices(self.mutator.sample_choices(kind))
        with _no_dropout(self.architecture):
            if self.distiller is None:
                found: Losses = self._run_forward(batch, mode="loss")
                return found
            with self.distiller.student_recorders:
                self._run_forward(batch, mode="loss")
            return dict(self.distiller.compute_distill_losses())


def _kinds(strategy: str | Sequence[str] | None, num_random_samples: int) -> tuple[str, ...]:
    if strategy is None:
        return ("max", *["random"] * num_random_samples, "min")
    if isinstance(strategy, str):
        if strategy not in STRATEGIES:
            raise RecipeError(f"BigNAS: unknown strategy '{strategy}'", hint=nearest(strategy, STRATEGIES))
        return STRATEGIES[strategy]
    kinds = tuple(strategy)
    if not kinds or kinds[0] != "max" or any(kind not in KINDS for kind in kinds):
        raise RecipeError(
            f"BigNAS: expected a strategy of {', '.join(KINDS)} that begins with max, got {list(kinds)}",
            hint="strategy=('max', 'random', 'random', 'min')",
        )
    return kinds


@contextlib.contextmanager
def _no_dropout(model: nn.Module) -> Iterator[None]:
    """Turn off every dropout, stochastic depth among them."""
    kinds = (nn.modules.dropout._DropoutNd, DropPath)
    parts = [part for part in model.modules() if isinstance(part, kinds) and part.training]
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part in parts:
            part.training = True
