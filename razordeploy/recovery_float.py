"""Which operations a recovery leaves in float: the loudest first, and as few of them as the goal allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import fx

from razordeploy.backends.harness import torch_runner
from razordeploy.quantization.algorithms.data import Work
from razordeploy.quantization.compare import sqnr_db
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.noise import output_noise
from razordeploy.quantization.sensitivity import Effect, analyze, ranked

_MOST_FLOAT = 0.75
"""Share of the quantized operations that may go back to float: beyond it there is no int8 engine left to speak of."""
_RANKED_ON = 8
"""Samples that operations are ranked on."""

Ranking = list[tuple[str, str, float]]
"""Operation, its module, and the SQNR in dB that the outputs keep when it alone is quantized; most harmful first."""


def ranking(draft: Draft, work: Work) -> Ranking:
    """Every int8 operation that does harm.

    By gradients; where torch has no derivative of an operation of the graph, by quantizing one after the other.
    """
    modules = {op.node: op.module for op in draft.plan.ops}
    size = 1 if draft.captured.dynamic_batch else draft.captured.batch_size
    try:
        noise = output_noise(draft, replace(work, batch=size).batches(_RANKED_ON), seed=work.seed, pause=work.pause)
    except RuntimeError:
        return _one_by_one(draft, work, size)
    found = [(op, -10 * math.log10(power)) for op, power in noise.items() if 0 < power < math.inf]
    return [(op, modules[op], db) for op, db in sorted(found, key=lambda item: item[1])]


def _one_by_one(draft: Draft, work: Work, size: int) -> Ranking:
    count = max(_RANKED_ON // size, 1) * size if draft.captured.dynamic_batch else size
    arrays = [x[:count].numpy() for x in work.inputs]
    expected = _first(torch_runner(draft.float_model().graph_module)(*arrays))

    def measure(module: fx.GraphModule) -> Effect:
        work.pause()
        return Effect(sqnr_db=sqnr_db(expected, _first(torch_runner(module)(*arrays))))

    found = ranked(analyze(draft, measure, parts=()))
    return [(s.node, s.module, s.isolated.sqnr_db) for s in found if s.isolated.sqnr_db is not None]


def _first(outputs: object) -> torch.Tensor:
    return torch.as_tensor(outputs[0] if isinstance(outputs, tuple) else outputs)


def most_in_float(plain: Draft) -> int:
    """How many operations of what plain quantization makes may go back to float."""
    return max(1, int(_MOST_FLOAT * sum(op.int8 for op in plain.plan.ops)))


def fewest(most: int, enough: Callable[[int], bool]) -> int | None:
    """The smallest count from 1 to ``most`` that is found ``enough``: doubled until one is, then halved towards it.

    Returns:
        The count; None where even ``most`` is not enough.
    """
    low, high = 0, 1
    while not enough(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high


def more(count: int, most: int, tries: int = 4) -> Iterator[int]:
    """``count``, and a few larger ones for an engine that loses a little more than its simulation."""
    for _ in range(tries):
        yield count
        if count >= most:
            return
        count = min(most, count + max(1, count // 8))


def in_float(draft: Draft, chosen: Ranking, batches: Iterable[tuple[torch.Tensor, ...]]) -> Draft:
    """A copy of ``draft`` whose ``chosen`` operations stay float; ``batches`` for scales that this makes necessary."""
    changed = draft.copied()
    reasons = {op: f"float: keeps about {db:.0f} dB when it alone is quantized" for op, _, db in chosen}
    changed.keep_float(reasons, batches)
    return changed
