"""Calibration samples that an algorithm may read as often as it likes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch

from razordeploy.capture.graph import CapturedModel

MAX_BYTES = 512 * 2**20
"""Memory that the samples may take."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What an algorithm works with beside the draft."""

    inputs: tuple[torch.Tensor, ...]
    """All samples, ``(N, ...)`` of each input."""
    batch: int = 32
    """Samples of one call: the model's own number where its code fixes that."""
    seed: int = 0
    tell: Callable[[str], None] = lambda text: None
    """A step begins."""
    pause: Callable[[], None] = lambda: None
    """Called often; raises where the run was asked to end."""
    notes: list[str] = field(default_factory=list)
    """Lines for the report."""
    until: float | None = None
    """When, by ``time.monotonic()``, an algorithm that learns part after part leaves the rest as it is; None: never."""

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return int(self.inputs[0].shape[0])

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.until is not None and time.monotonic() >= self.until

    def batches(self, limit: int | None = None) -> Iterator[tuple[torch.Tensor, ...]]:
        """Batches of the first ``limit`` samples, at least one; a smaller last one where sizes may vary."""
        count = self.samples if limit is None else max(min(limit, self.samples), min(self.batch, self.samples))
        for start in range(0, count, self.batch):
            self.pause()
            yield tuple(x[start : min(start + self.batch, count)] for x in self.inputs)


def hold(captured: CapturedModel, batches: Iterable[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    """Read as many samples as memory allows; a rest that does not fill a fixed batch is left out."""
    parts: list[tuple[torch.Tensor, ...]] = []
    size = 0
    for batch in batches:
        parts.append(tuple(x.detach() for x in batch))
        size += sum(x.numel() * x.element_size() for x in batch)
        if size >= MAX_BYTES:
            break
    inputs = tuple(torch.cat(column) for column in zip(*parts, strict=True))
    if captured.dynamic_batch:
        return inputs
    whole = len(inputs[0]) // captured.batch_size * captured.batch_size
    return tuple(x[:whole] for x in inputs)
