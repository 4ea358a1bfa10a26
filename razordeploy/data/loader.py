"""Batches from a data set or from whatever the caller has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from razordeploy.data.base import Source
from razordeploy.data.batch import Batch
from razordeploy.data.convert import EXPECTED, as_tensor, mm_names, split_item
from razordeploy.errors import DataError


def batches(
    source: Source, batch_size: int, limit: int | None = None, seed: int = 0, shuffle: bool = False
) -> Iterator[Batch]:
    """Yield ``source`` in batches; with ``shuffle`` a seeded random subset of ``limit`` samples.

    The same seed always names the same samples in the same order. A uniform shuffle keeps the classes in the data
    set's own proportions, which is what calibration wants; taking the first files of a sorted folder would not.

    Args:
        source: a map-style data set.
        batch_size: samples per batch; the last one may be smaller.
        limit: at most this many samples; None: all.
        seed: of the shuffle.
        shuffle: False keeps the data set's order.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise DataError(f"expected a batch size and a limit of at least 1, got {batch_size} and {limit}")
    total = len(source)
    if total == 0:
        raise DataError(f"expected at least one sample, found none in {source.describe()}")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist() if shuffle else range(total)
    chosen = list(order)[:limit]
    for start in range(0, len(chosen), batch_size):
        yield _stack(source, chosen[start : start + batch_size])


def _stack(source: Source, indices: Sequence[int]) -> Batch:
    names = tuple(source.name(i) for i in indices)
    rows, labels = zip(*(source[i] for i in indices), strict=True)
    samples = [row if isinstance(row, tuple) else (row,) for row in rows]
    for sample, name in zip(samples, names, strict=True):
        shapes = [tuple(x.shape) for x in sample]
        expected = [tuple(x.shape) for x in samples[0]]
        if shapes != expected:
            raise DataError(
                f"expected samples of one shape, {expected} as in {names[0]}, got {shapes} in {name}",
                hint="set resize and crop so that all images become the same size",
            )
    inputs = tuple(torch.stack(column) for column in zip(*samples, strict=True))
    return Batch(inputs, None if min(labels) < 0 else torch.tensor(labels), names)


def from_iterable(obj: Any, batch_size: int = 32, input_names: Sequence[str] | None = None) -> Iterator[Batch]:
    """Yield batches from what a Python caller has at hand.

    ``obj`` is one of: an iterable (list, generator, torch or mmengine DataLoader) whose items are batches; a map-style
    ``Dataset`` of single samples; one tensor or array (N, ...), cut into batches. An item is a tensor or array
    (N, ...), a tuple of them (several inputs), (inputs, target), a dict of inputs by name, or an OpenMMLab dict with
    ``inputs`` and ``data_samples``. In a pair, the second is the target if it is an int, a list of ints or an integer
    array of at most one axis.

    Args:
        obj: the data.
        batch_size: where ``obj`` holds single samples or one long array.
        input_names: order of the model's arguments, for dicts; None: the dict's own order.

    Raises:
        DataError: something else; says what was expected and what was found.
    """
    if isinstance(obj, Source):
        yield from batches(obj, batch_size)
    elif isinstance(obj, (Tensor, np.ndarray)):
        whole = as_tensor(obj, "data")
        if whole.ndim < 2:
            raise DataError(f"data: expected one array (N, ...) of N samples, got shape {tuple(whole.shape)}")
        for start in range(0, len(whole), batch_size):
            yield Batch((whole[start : start + batch_size],), None)
    elif isinstance(obj, torch.utils.data.Dataset) and hasattr(obj, "__getitem__") and hasattr(obj, "__len__"):
        loader = torch.utils.data.DataLoader(obj, batch_size=batch_size, shuffle=False)
        yield from _items(loader, input_names)
    else:
        yield from _items(obj, input_names)


def _items(obj: Any, input_names: Sequence[str] | None) -> Iterator[Batch]:
    wrong = isinstance(obj, (str, bytes, dict, torch.nn.Module)) or not isinstance(obj, Iterable)
    # An object may iterate through the old __getitem__ protocol only.
    if wrong and not (hasattr(obj, "__getitem__") and not isinstance(obj, (str, bytes, dict, torch.nn.Module))):
        shown = f" {obj!r:.60}" if isinstance(obj, (str, bytes)) else ""
        hint = "wrap a single batch in a list" if isinstance(obj, dict) else None
        raise DataError(
            f"data: expected an iterable of batches or one array (N, ...), got {type(obj).__name__}{shown}", hint=hint
        )
    for index, item in enumerate(obj):
        if item is None:
            raise DataError(f"batch {index}: expected {EXPECTED}, got None")
        if isinstance(item, Batch):
            yield item
            continue
        inputs, target = split_item(item, f"batch {index}", input_names)
        if target is not None and target.ndim == 0:
            target = target[None]
        names = mm_names(item.get("data_samples")) if isinstance(item, dict) else ()
        yield Batch(inputs, target, names)
