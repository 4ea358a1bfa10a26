"""The processes of one training: joined before the first one decides anything for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, get_rank, init_dist, is_distributed


def join(launcher: str) -> int:
    """Let this process join those that ``launcher`` started; returns its rank, 0 where there is no other."""
    if launcher == "pytorch" and not torch.cuda.is_available() and not is_distributed():
        # mmengine would choose a GPU for each process.
        torch.distributed.init_process_group("gloo")
    elif launcher != "none" and not is_distributed():
        init_dist(launcher, backend="nccl" if torch.cuda.is_available() else "gloo")
    return int(get_rank())


def from_first(function: Callable[[], Any]) -> Any:
    """What ``function`` returns in the first process, in all of them."""
    if not is_distributed():
        return function()
    found = [function() if get_rank() == 0 else None]
    broadcast_object_list(found)
    return found[0]
