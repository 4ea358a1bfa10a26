"""Data that would make a silent wrong calibration, refused with its place."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from razordeploy.data.batch import Batch
from razordeploy.errors import DataError

# Below this, min / max statistics depend visibly on which samples were drawn.
MIN_SAMPLES = 32
# What a model takes when the caller does not say: activations, token ids, masks.
DEFAULT_DTYPES = (torch.float32, torch.int64, torch.int32, torch.bool)

Shape = Sequence[int | None]


class DataWarning(UserWarning):
    """Data that can be used but gives doubtful statistics."""


def check_batch(
    batch: Batch,
    index: int,
    expected_shapes: Sequence[Shape] | None = None,
    expected_dtypes: Sequence[torch.dtype] | None = None,
) -> list[str]:
    """Refuse a batch that cannot be right; return warnings about one that may not be.

    Args:
        batch: as a loader yields it.
        index: its place, for the message.
        expected_shapes: per input without the batch axis, (C, H, W); None or -1 for a free size; None: not checked.
        expected_dtypes: per input; None: float32, int64, int32 or bool.

    Raises:
        DataError: no sample, wrong number of inputs, wrong shape or dtype, NaN or infinity, targets of another length.
    """
    if expected_shapes is not None and len(batch.inputs) != len(expected_shapes):
        raise DataError(
            f"batch {index}: expected {len(expected_shapes)} model inputs, got {len(batch.inputs)}",
            hint="a pair counts as (inputs, target) only when the target is of an integer type",
        )
    notes = []
    for position, x in enumerate(batch.inputs):
        where = f"batch {index}" if len(batch.inputs) == 1 else f"batch {index}, input {position}"
        _check_dtype(x, where, None if expected_dtypes is None else (expected_dtypes[position],))
        _check_shape(x, where, None if expected_shapes is None else expected_shapes[position])
        if len(x) != len(batch):
            raise DataError(f"{where}: expected {len(batch)} samples as in input 0, got {len(x)}")
        _check_finite(x, where, batch.names)
        if x.is_floating_point() and not bool(x.any()):
            notes.append(f"{where}: all {x.numel()} values are zero; is the preprocessing right?")
    if batch.target is not None and len(batch.target) != len(batch):
        raise DataError(f"batch {index}: expected {len(batch)} targets, got {len(batch.target)}")
    return notes


def checked(
    batches: Iterable[Batch],
    expected_shapes: Sequence[Shape] | None = None,
    expected_dtypes: Sequence[torch.dtype] | None = None,
    min_samples: int = MIN_SAMPLES,
    notes: list[str] | None = None,
) -> Iterator[Batch]:
    """Pass batches on, each checked; at the end refuse an empty source and warn of a small one.

    Args:
        batches: what to check.
        expected_shapes: as for :func:`check_batch`.
        expected_dtypes: as for :func:`check_batch`.
        min_samples: warn below this many; 0 for evaluation data.
        notes: warnings are appended here; None: they are issued as :class:`DataWarning`.
    """
    samples = 0
    for index, batch in enumerate(batches):
        for note in check_batch(batch, index, expected_shapes, expected_dtypes):
            _warn(note, notes)
        samples += len(batch)
        yield batch
    if samples == 0:
        raise DataError("expected at least one batch of data, got none", hint="an exhausted generator yields nothing")
    if samples < min_samples:
        _warn(f"only {samples} calibration samples: expected at least {min_samples}, 300 are usual", notes)


def _warn(note: str, notes: list[str] | None) -> None:
    if notes is None:
        warnings.warn(note, DataWarning, stacklevel=3)
    else:
        notes.append(note)


def _check_dtype(x: Tensor, where: str, allowed: Sequence[torch.dtype] | None) -> None:
    if x.dtype in (allowed or DEFAULT_DTYPES):
        return
    expected = " or ".join(_short(d) for d in (allowed or DEFAULT_DTYPES[:1]))
    image = x.dtype == torch.uint8
    hint = "scale and normalise the images as in training first" if image else "convert it with .to(dtype)"
    raise DataError(f"{where}: expected {expected}, got {_short(x.dtype)} {tuple(x.shape)}", hint=hint)


def _check_shape(x: Tensor, where: str, expected: Shape | None) -> None:
    if x.ndim == 0 or x.numel() == 0:
        raise DataError(f"{where}: expected samples (N, ...), got shape {tuple(x.shape)}")
    if expected is None or _fits(x.shape[1:], expected):
        return
    wanted = ", ".join("?" if _free(size) else str(size) for size in expected)
    hint = None
    if _fits(x.shape, expected):
        hint = "the batch axis is missing: x[None], or stack several samples"
    elif x.ndim == 4 and len(expected) == 3 and _fits((x.shape[3], x.shape[1], x.shape[2]), expected):
        hint = "the channels come last: x.permute(0, 3, 1, 2)"
    elif x.ndim == len(expected) + 1 and not _free(expected[0]) and x.shape[1] != expected[0]:
        hint = f"the model takes {expected[0]} channels, the data has {x.shape[1]}"
    raise DataError(f"{where}: expected shape (N, {wanted}), got {tuple(x.shape)}", hint=hint)


def _check_finite(x: Tensor, where: str, names: Sequence[str]) -> None:
    if not x.is_floating_point():
        return
    bad = ~torch.isfinite(x)
    if not bool(bad.any()):
        return
    row = int(bad.flatten(1).any(1).nonzero()[0]) if x.ndim > 1 else int(bad.nonzero()[0])
    kinds = [kind for kind, found in (("NaN", torch.isnan(x)), ("infinity", torch.isinf(x))) if bool(found.any())]
    file = f" ({names[row]})" if row < len(names) else ""
    raise DataError(
        f"{where}: {' and '.join(kinds)} in {int(bad.sum())} of {x.numel()} values, first in sample {row}{file}",
        hint="one such value spoils every statistic: repair or remove the sample",
    )


def _free(size: int | None) -> bool:
    return size is None or size == -1


def _fits(shape: Sequence[int], expected: Shape) -> bool:
    return len(shape) == len(expected) and all(_free(e) or s == e for s, e in zip(shape, expected, strict=True))


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
