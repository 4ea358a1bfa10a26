"""Batch norms whose channels are weighted by the probability that they are kept."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.batchnorm import DynamicBatchNorm2d
from razordeploy.subnet.markov import MarkovGroups, marginal_probabilities


class DMCPBatchNorm2d(DynamicBatchNorm2d):
    """The batch norm of DMCP (Guo et al. 2020, arXiv 2005.03354): while architecture parameters are trained, group k
    of channels is multiplied by its marginal probability, equation 4.
    """

    dynamic_state: ClassVar[tuple[str, ...]] = (*DynamicBatchNorm2d.dynamic_state, "_arch")
    _arch: tuple[Tensor, MarkovGroups] | None = None

    def set_forward_args(self, arch_param: Tensor | None, arch_attr: MarkovGroups | None = None) -> None:
        """Weigh channels by ``arch_param`` (groups,) over the groups of ``arch_attr``; None does not."""
        if arch_param is None:
            self._arch = None
            return
        if arch_attr is None or arch_param.shape != (arch_attr.num_groups,):
            raise ModelError(f"DMCPBatchNorm2d: parameter of shape {tuple(arch_param.shape)} for groups {arch_attr}")
        # In a tuple, so that the parameter is not registered here: it is the mutator's.
        self._arch = (arch_param, arch_attr)

    def _forward_sliced(self, x: Tensor) -> Tensor:
        out = super()._forward_sliced(x)
        if self._arch is None or self._arch[1].num_groups == 0:
            return out
        arch_param, groups = self._arch
        probability = marginal_probabilities(arch_param).repeat_interleave(groups.group_size)
        scale = torch.cat([probability.new_ones(groups.min_channels), probability])[: out.size(1)]
        return out * scale.view(1, -1, 1, 1)
