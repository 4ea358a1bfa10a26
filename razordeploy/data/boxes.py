"""Batches of detection data sets: images of one size, with what their boxes are decoded and judged by."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.data.batch import Batch
from razordeploy.data.convert import mm_names
from razordeploy.data.mm import open_loader, read_loader, registry_scope
from razordeploy.errors import DataError


def box_batches(
    dataloader: Mapping[str, Any],
    preprocess: nn.Module,
    shape: tuple[int, ...],
    *,
    num_samples: int | None = None,
    seed: int = 0,
    keep: MutableMapping[int, Any] | None = None,
) -> Iterator[Batch]:
    """Yield preprocessed batches of a detection dataloader, padded to one size.

    Args:
        dataloader: as in ``test_dataloader``; its pipeline's sizes are replaced by ``shape``.
        preprocess: the detector's data preprocessor.
        shape: (C, H, W) that every image is padded to, at the right and below, as mmdet pads.
        num_samples: stop after this many; None: all.
        seed: of a shuffling sampler.
        keep: takes the data sample of every image, by its number in the stream, which is the batch's target.

    Raises:
        DataError: the data cannot be read, or an image does not fit into ``shape``.
    """
    with registry_scope("mmdet"):
        loader = open_loader(resized(dataloader, shape), seed)
    done = 0
    for data in read_loader(loader):
        done_before = done
        batch = preprocess(data, False)
        samples = batch["data_samples"] or []
        images = _padded(batch["inputs"], shape, float(getattr(preprocess, "pad_value", 0)), samples)
        count = len(images) if num_samples is None else min(len(images), num_samples - done)
        done += count
        numbers = torch.arange(done_before, done)
        if keep is not None:
            keep.update(zip(numbers.tolist(), samples, strict=False))
        yield Batch((images[:count],), numbers, mm_names(samples)[:count])
        if done == num_samples:
            return


def resized(dataloader: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """The dataloader whose pipelines resize and pad to ``shape`` (C, H, W)."""
    made = copy.deepcopy(dict(dataloader))
    _resize(made.get("dataset"), shape)
    return made


def _resize(dataset: Any, shape: tuple[int, ...]) -> None:
    if isinstance(dataset, list | tuple):
        for one in dataset:
            _resize(one, shape)
    if not isinstance(dataset, MutableMapping):
        return
    _, height, width = shape
    for step in dataset.get("pipeline") or ():
        kind = str(step.get("type")).rpartition(".")[2] if isinstance(step, MutableMapping) else ""
        if kind == "Resize" and "scale" in step:
            step["scale"] = (width, height)
        if kind == "Pad" and "size" in step:
            step["size"] = (width, height)
    for key in ("dataset", "datasets"):
        _resize(dataset.get(key), shape)


def _padded(images: Tensor, shape: tuple[int, ...], value: float, samples: Any) -> Tensor:
    below, right = shape[1] - images.shape[2], shape[2] - images.shape[3]
    if images.shape[1] != shape[0] or below < 0 or right < 0:
        name = ", ".join(mm_names(samples)) or "an image"
        raise DataError(
            f"{name}: expected images that fit into {tuple(shape)}, got {tuple(images.shape[1:])} after the pipeline",
            hint="a resize that keeps the ratio turns with the image: take a square, deploy.input_shape=(3, 640, 640)",
        )
    for sample in samples:
        sample.set_metainfo({"batch_input_shape": tuple(shape[1:]), "pad_shape": tuple(shape[1:])})
    return functional.pad(images, (0, right, 0, below), value=value)
