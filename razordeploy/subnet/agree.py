"""One random draw for every process of a distributed run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import distributed

T = TypeVar("T")


def agree(draw: Callable[[], T]) -> T:
    """Call ``draw`` on rank 0 and return its result on every rank; without a process group just call it.

    Ranks that train different paths of a supernet average gradients of different functions, without any error from
    DistributedDataParallel, so whatever is random about a subnet has to pass through here. Every rank must call it
    equally often. The result has to be picklable.
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return draw()
    box: list[T | None] = [draw() if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(box, src=0)
    result: T = box[0]  # type: ignore[assignment]
    return result
