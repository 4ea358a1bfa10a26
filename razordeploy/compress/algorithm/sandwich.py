"""One step on several subnets of a supernet (Yu and Huang 2019, arXiv 1903.05134, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from razordeploy.compress.algorithm.base import BaseAlgorithm, Losses, add_prefix
from razordeploy.compress.algorithm.step import apply_gradients
from razordeploy.compress.distill.distillers.configurable import ConfigurableDistiller

Subnet = tuple[str, Callable[[], Any]]
"""What a subnet is called in the log, and what sets it."""


def sandwich_step(
    algorithm: BaseAlgorithm,
    data: Any,
    optim_wrapper: Any,
    subnets: Sequence[Subnet],
    distiller: ConfigurableDistiller | None = None,
    *,
    distil: bool = True,
) -> dict[str, Tensor]:
    """Train every subnet on one batch: the gradients of all add up, and one step is taken.

    The first subnet is the teacher of the others: the distiller sees its records without their gradient. Only the
    first has dropout.

    Args:
        algorithm: whose architecture is the supernet.
        data: a batch of the dataloader.
        optim_wrapper: of the supernet's weights.
        subnets: in the order in which they run, the largest first.
        distiller: adds its losses to those of every subnet but the first; None: all learn from the labels alone.
        distil: False leaves the distiller out, in the first steps for instance.

    Returns:
        Losses to log, as ``<name>.<loss>``.
    """
    batch = algorithm.data_preprocessor(data, True)
    log: dict[str, Tensor] = {}
    for index, (name, set_subnet) in enumerate(subnets):
        set_subnet()
        losses = _first(algorithm, batch, optim_wrapper, distiller) if index == 0 else None
        if losses is None:
            used = distiller if distil else None
            with without_dropout(algorithm.architecture):
                losses = _other(algorithm, batch, optim_wrapper, used)
        total, parsed = algorithm.parse_losses(losses)
        optim_wrapper.backward(total)
        log.update({key: value.detach() for key, value in add_prefix(parsed, name).items()})
    apply_gradients(optim_wrapper)
    if distiller is not None:
        distiller.reset_data_buffer()
    # mmengine's loops want the sum by this name.
    log["loss"] = sum((value for key, value in log.items() if key.endswith(".loss")), start=total.detach() * 0)
    return log


def _first(algorithm: BaseAlgorithm, batch: Any, optim_wrapper: Any, distiller: ConfigurableDistiller | None) -> Losses:
    with optim_wrapper.optim_context(algorithm), nullcontext() if distiller is None else distiller.teacher_recorders:
        losses: Losses = algorithm._run_forward(batch, mode="loss")
    if distiller is not None:
        distiller.teacher_recorders.detach()
    return losses


def _other(algorithm: BaseAlgorithm, batch: Any, optim_wrapper: Any, distiller: ConfigurableDistiller | None) -> Losses:
    with optim_wrapper.optim_context(algorithm):
        if distiller is None:
            return dict(algorithm._run_forward(batch, mode="loss"))
        with distiller.student_recorders:
            losses: Losses = dict(algorithm._run_forward(batch, mode="loss"))
        losses.update(add_prefix(distiller.compute_distill_losses(), "distill"))
    return losses


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Switch dropout off while the block runs."""
    dropped = [module for module in model.modules() if isinstance(module, _DropoutNd) and module.training]
    for module in dropped:
        module.training = False
    try:
        yield
    finally:
        for module in dropped:
            module.training = True


@contextmanager
def without_statistics(model: nn.Module) -> Iterator[None]:
    """Leave running statistics as they are while the block runs, in training mode too."""
    norms = [(module, module.momentum) for module in model.modules() if isinstance(module, _NormBase)]
    for module, _ in norms:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, momentum in norms:
            module.momentum = momentum
