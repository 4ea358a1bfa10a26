"""Batches of all processes as one."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def gather_batch(x: Tensor) -> Tensor:
    """Concatenate ``x`` (N, ...) of every process along axis 0, in rank order; without processes, ``x`` itself.

    Gradients flow back to the process that each row came from, summed over the processes that used it. Every process
    has to bring the same N.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return x
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(x.contiguous()), dim=0)
