"""Training steps of several backward passes, alone and on several processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, distributed, nn


class AlgorithmDDP(MMDistributedDataParallel):
    """Runs the ``train_step`` of the algorithm inside, which averages gradients itself by ``apply_gradients``.

    DistributedDataParallel averages while one backward pass runs, and in silence gets wrong what differs from that:
    several passes, or a part of the model that a pass leaves out.

    Args:
        module: the algorithm.
        find_unused_parameters: taken for mmrazor's sake; parts that are left out need no search.
        options: of ``MMDistributedDataParallel``.
    """

    def __init__(self, module: nn.Module, find_unused_parameters: bool = True, **options: Any) -> None:
        super().__init__(module=module, find_unused_parameters=False, **options)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """One step of the algorithm."""
        log: dict[str, Tensor] = self.module.train_step(data, optim_wrapper)
        return log


# mmrazor has one for each algorithm.
MODEL_WRAPPERS: dict[str, type[AlgorithmDDP]] = {
    "AlgorithmDDP": AlgorithmDDP,
    "AutoSlimDDP": AlgorithmDDP,
    "BigNASDDP": AlgorithmDDP,
    "DMCPDDP": AlgorithmDDP,
    "DSNASDDP": AlgorithmDDP,
    "DartsDDP": AlgorithmDDP,
    "GroupFisherDDP": AlgorithmDDP,
    "SlimmableNetworkDDP": AlgorithmDDP,
}
"""The wrappers that a config may name."""


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes; one that is None here counts as zero if others have it."""
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        return
    has = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
    distributed.all_reduce(has)
    for group in _by_type([p for p, count in zip(trained, has.tolist(), strict=True) if count]):
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in group])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for parameter, part in zip(group, flat.split([p.numel() for p in group]), strict=True):
            parameter.grad = part.view_as(parameter).clone()


def _by_type(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    groups: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    return list(groups.values())


def apply_gradients(optim_wrapper: Any) -> None:
    """Average the gradients over all processes, take one step and forget them.

    Several backward passes of one step add up, whatever ``accumulative_counts`` the wrapper has: mmrazor's recipes set
    it to the number of passes, which there divides every loss by that.

    Args:
        optim_wrapper: of the parameters that step.
    """
    average_gradients(p for group in optim_wrapper.optimizer.param_groups for p in group["params"])
    optim_wrapper.step()
    optim_wrapper.zero_grad()
