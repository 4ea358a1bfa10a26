"""The score of a candidate: the accuracy of the very model that would be exported."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from razordeploy.compress.nas.recalibrate import recalibrate
from razordeploy.compress.nas.search.space import Subnet
from razordeploy.compress.nas.search.supernet import Supernet
from razordeploy.data.batch import Batch
from razordeploy.errors import RecipeError, nearest
from razordeploy.train.evaluate import evaluate, module_predict

Stream = Callable[[], Iterable[Batch]]

_KEPT_BYTES = 1_000_000_000


@dataclass(kw_only=True)
class Scorer:
    """Fixes, slices, recalibrates and evaluates a candidate, on a copy: the supernet keeps its statistics."""

    supernet: Supernet
    evaluation: Stream
    """Labelled data."""
    calibration: Stream | None = None
    """What batch norms are recalibrated on; None: the supernet's statistics are used."""
    calibration_samples: int | None = None
    """None: all."""
    metric: Any = "top1"
    score: str = "top1"
    """Figure of the metric that counts."""
    example_inputs: tuple[Any, ...] = ()

    def __call__(self, subnet: Subnet) -> tuple[float, float]:
        """The score, and the seconds it took."""
        start = time.perf_counter()
        figures = self.figures(self.static(subnet)[1])
        return figures[self.score], time.perf_counter() - start

    def static(self, subnet: Subnet) -> tuple[dict[str, Any], nn.Module]:
        """Content of the subnet file, and the model that is deployed: static, its batch norms recalibrated."""
        content, module = self.supernet.fixed(subnet, self.example_inputs)
        if self.calibration is not None:
            recalibrate(module, self.calibration(), num_samples=self.calibration_samples)
        return content, module

    def figures(self, module: nn.Module) -> dict[str, float]:
        """What the metric says of ``module``.

        Raises:
            RecipeError: the metric has no figure of the score's name.
        """
        found = evaluate(module_predict(module), self.evaluation(), self.metric)
        if self.score not in found:
            known = [name for name in found if name != "samples"]
            raise RecipeError(f"search.score: the metric has no '{self.score}'", hint=nearest(self.score, known))
        return found


def kept(stream: Stream, limit: int | None = None) -> Stream:
    """The same batches each time, read once where they are small enough to be kept.

    Args:
        stream: opens the data from its start.
        limit: samples; None: all.
    """
    batches: list[Batch] | None = None

    def limited() -> Iterable[Batch]:
        seen = 0
        for batch in stream():
            if limit is not None and seen + len(batch) > limit:
                batch = batch.head(limit - seen)
            if len(batch):
                yield batch
            seen += len(batch)
            if limit is not None and seen >= limit:
                return

    def opened() -> Iterable[Batch]:
        nonlocal batches
        if batches is not None:
            yield from batches
            return
        held: list[Batch] = []
        size = 0
        for batch in limited():
            size += sum(x.numel() * x.element_size() for x in batch.inputs)
            if size <= _KEPT_BYTES:
                held.append(batch)
            yield batch
        if size <= _KEPT_BYTES:
            batches = held

    return opened
