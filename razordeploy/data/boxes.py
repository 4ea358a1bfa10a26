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
from razordeploy.data.mm import calibration_loader, open_loader, read_loader, registry_scope
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
    padded, done = Padded(preprocess, shape), 0
    for data in read_loader(loader):
        done_before = done
        batch = padded(data)
        images, samples = batch["inputs"], batch["data_samples"] or []
        count = len(images) if num_samples is None else min(len(images), num_samples - done)
        done += count
        numbers = torch.arange(done_before, done)
        if keep is not None:
            keep.update(zip(numbers.tolist(), samples, strict=False))
        yield Batch((images[:count],), numbers, mm_names(samples)[:count])
        if done == num_samples:
            return


class Padded(nn.Module):
    """A detector's data preprocessor whose images all get one size; nothing in it is random.

    Args:
        preprocess: mmdet's.
        shape: (C, H, W).
    """

    def __init__(self, preprocess: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.preprocess, self.shape = preprocess, shape

    def forward(self, data: Any, training: bool = False) -> dict[str, Any]:
        """A batch of the loader -> ``dict(inputs, data_samples)``.

        Raises:
            DataError: an image does not fit.
        """
        del training  # mmdet would give every batch another size
        batch: dict[str, Any] = self.preprocess(data, False)
        value = float(getattr(self.preprocess, "pad_value", 0))
        batch["inputs"] = _padded(batch["inputs"], self.shape, value, batch["data_samples"] or [])
        return batch


def training_loader(config: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """The training images of a config, resized as for the test and mirrored half of the time.

    Args:
        config: with ``train_dataloader``, and ``test_dataloader`` or ``val_dataloader``.
        shape: (C, H, W) that they are resized to.
    """
    images = calibration_loader(config)
    loader = {**config["train_dataloader"], "dataset": images["dataset"]}
    _for_training(loader["dataset"])
    return resized(loader, shape)


def _for_training(dataset: Any) -> None:
    """Annotations that the test pipeline may do without, and mirrored images, in place."""
    for one in dataset if isinstance(dataset, list | tuple) else [dataset]:
        if not isinstance(one, MutableMapping):
            continue
        one.pop("test_mode", None)
        for key in ("dataset", "datasets"):
            _for_training(one.get(key))
        steps = list(one.get("pipeline") or ())
        if not steps:
            continue
        kinds = [str(step.get("type")).rpartition(".")[2] for step in steps]
        if "LoadAnnotations" not in kinds:
            steps.insert(1, {"type": "LoadAnnotations", "with_bbox": True})
        steps.insert(len(steps) - 1, {"type": "RandomFlip", "prob": 0.5})
        packed = dict(steps[-1])
        if "meta_keys" in packed:
            packed["meta_keys"] = (*packed["meta_keys"], "flip", "flip_direction")
        one["pipeline"] = [*steps[:-1], packed]


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
