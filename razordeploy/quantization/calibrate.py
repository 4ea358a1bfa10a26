"""The calibration pass of a run: checked data, kept statistics, an interrupt that loses nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from razordeploy.capture.graph import CapturedModel
from razordeploy.data.batch import Batch
from razordeploy.data.check import checked
from razordeploy.errors import DataError, RazorDeployError
from razordeploy.quantization.cache import Pass, StatisticsCache
from razordeploy.quantization.plan import QuantPlan
from razordeploy.quantization.statistics import Statistics, collect

_DIGEST_VALUES = 1024
"""Values of a sample that its digest reads: enough to know it again, and cheap next to running the model on it."""


_HEAD = 4
"""Samples kept to measure on after the pass."""


class Interrupted(BaseException):
    """The run was asked to stop; the text says what is kept. Like ``KeyboardInterrupt``, no ``Exception``."""


def calibrate(
    captured: CapturedModel,
    plans: Sequence[QuantPlan],
    batches: Iterable[Batch],
    *,
    cache: StatisticsCache | None = None,
    advance: Callable[[int], None] = lambda samples: None,
    stop: Callable[[], bool] = lambda: False,
) -> Pass:
    """Observe what ``plans`` quantize, or take it from ``cache``.

    Args:
        captured: the float graph.
        plans: one per backend.
        batches: the calibration data; not opened when the cache has a finished pass over it.
        cache: where statistics are kept; None keeps none.
        advance: told the samples done.
        stop: asked after every batch; True ends the pass there.

    Raises:
        Interrupted: ``stop`` asked for it; the statistics so far are in ``cache``.
        DataError: the data cannot be used.
    """
    saved = cache.load(plans) if cache is not None else None
    if saved is not None and saved.complete:
        advance(saved.statistics.samples)
        return saved
    done = Pass(statistics=saved.statistics if saved else Statistics(), batches=saved.batches if saved else 0)
    skip = done.batches

    def inputs() -> Iterator[tuple[torch.Tensor, ...]]:
        stream = checked_stream(batches, captured, "calibration data", notes=done.notes)
        if not captured.dynamic_batch:
            stream = of_size(stream, captured.batch_size)
        for i, batch in enumerate(stream):
            done.seen |= sample_digests(batch)
            if i == 0:
                size = captured.batch_size if not captured.dynamic_batch else _HEAD
                done.head = tuple(x[:size].clone() for x in batch.inputs)
            if i >= skip:
                yield batch.inputs

    def on_batch(so_far: Statistics) -> None:
        done.batches += 1
        done.statistics = so_far
        advance(so_far.samples)
        if stop():
            if cache is not None:
                cache.save(done)
            kept = f"{so_far.samples} calibration samples are kept" if cache is not None else "nothing is kept"
            raise Interrupted(kept)

    done.statistics = collect(
        captured, plans, inputs(), statistics=done.statistics if saved else None, on_batch=on_batch
    )
    done.complete = True
    if cache is not None:
        cache.save(done)
    return done


def checked_stream(
    batches: Iterable[Batch], captured: CapturedModel, what: str, *, notes: list[str], min_samples: int = 32
) -> Iterator[Batch]:
    """Pass ``batches`` on, each held against the inputs that the model was captured with.

    Raises:
        DataError: starts with ``what``; also for whatever the caller's own loader raises.
    """
    shapes = [tuple(x.shape[1:]) for x in captured.example_inputs]
    dtypes = [x.dtype for x in captured.example_inputs]
    own: list[str] = []
    found = iter(checked(_loaded(batches), shapes, dtypes, min_samples=min_samples, notes=own))
    while True:
        try:
            batch = next(found)
        except StopIteration:
            notes += [f"{what}: {note}" for note in _collapsed(own)]
            return
        except DataError as error:
            raise DataError(f"{what}: {error}") from error
        yield batch


def _loaded(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Tell an error of the caller's loader from one of ours."""
    index = 0
    try:
        for index, batch in enumerate(batches, 1):  # noqa: B007  read in the except clause
            yield batch
    except (RazorDeployError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"the loader failed at batch {index}: {type(error).__name__}: {error}") from error


def _collapsed(notes: Sequence[str]) -> list[str]:
    """One line for what is said of many batches."""
    same: dict[str, list[str]] = {}
    for note in notes:
        batch, colon, text = note.partition(": ")
        same.setdefault(text if colon else batch, []).append(note)
    return [f"{found[0]} (and {len(found) - 1} more batches)" if found[1:] else found[0] for found in same.values()]


def of_size(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Cut a stream into batches of exactly ``size`` samples, for a model whose code fixes it; a rest is left out."""
    held: list[Batch] = []
    for batch in batches:
        held.append(batch)
        while sum(map(len, held)) >= size:
            whole = _joined(held)
            yield whole.head(size)
            held = [_tail(whole, size)] if len(whole) > size else []


def _joined(parts: Sequence[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    inputs = tuple(torch.cat(column) for column in zip(*(part.inputs for part in parts), strict=True))
    return Batch(inputs, None, tuple(name for part in parts for name in part.names))


def _tail(batch: Batch, start: int) -> Batch:
    return Batch(tuple(x[start:] for x in batch.inputs), None, batch.names[start:])


def sample_digests(batch: Batch) -> set[str]:
    """Short hashes that tell the samples of ``batch`` apart, each over some values of every input."""
    hashes = [hashlib.blake2b(digest_size=8) for _ in range(len(batch))]
    for x in batch.inputs:
        rows = x.detach().reshape(len(x), -1)
        rows = rows[:, :: max(1, rows.shape[1] // _DIGEST_VALUES)].contiguous()
        for digest, row in zip(hashes, rows.numpy(), strict=True):
            digest.update(row.tobytes())
    return {digest.hexdigest() for digest in hashes}
