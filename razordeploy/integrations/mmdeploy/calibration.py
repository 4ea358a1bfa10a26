"""Which images mmdeploy's calibration file holds: of the training data, a few hundred, as the tests see them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch

NUM_SAMPLES = 300
"""Images where the deploy config names no number (``calib_config.num_samples``)."""
_SUBSET = "CalibrationSubset"


def choose_calibration_data(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Change what ``create_calib_input_data`` is given.

    mmdeploy's script always asks for the whole validation set, which the model is then evaluated on. Without
    ``--calib-dataset-cfg`` the training set is taken, through the pipeline of the evaluation data; ``calib_config``
    may name another one (``dataset_type``). Either way at most ``calib_config.num_samples`` images are.
    """
    names = ("calib_file", "deploy_cfg", "model_cfg", "model_checkpoint", "dataset_cfg", "dataset_type", "device")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    from mmdeploy.utils import load_config

    deploy_cfg, model_cfg = load_config(given["deploy_cfg"], given["model_cfg"])
    options = deploy_cfg.get("calib_config", {})
    own = given.get("dataset_cfg") is None
    data_cfg = model_cfg if own else load_config(given["dataset_cfg"])[0]
    wanted = options.get("dataset_type", "train") if own else given.get("dataset_type", "val")
    kind = _kind(wanted, data_cfg, own)
    loader = deepcopy(dict(data_cfg[f"{kind}_dataloader"]))
    dataset = dict(loader["dataset"])
    _warn_of_evaluation_data(dataset, model_cfg)
    pipeline = _evaluation_pipeline(model_cfg) if kind == "train" else None
    if pipeline is not None and "pipeline" in dataset:
        dataset["pipeline"] = pipeline
    loader["dataset"] = {
        "type": f"razordeploy.{_SUBSET}",
        "dataset": dataset,
        "num_samples": int(options.get("num_samples", NUM_SAMPLES)),
    }
    loader["sampler"] = {"type": "DefaultSampler", "shuffle": False}
    loader.pop("batch_sampler", None)
    from mmengine import Config

    given["dataset_cfg"] = Config({f"{kind}_dataloader": loader})
    given["dataset_type"] = kind
    return (), given


def _kind(wanted: str, data_cfg: Mapping[str, Any], own: bool) -> str:
    """The data set that there is: the one asked for, else the others in order of preference."""
    order = [wanted, *(k for k in ("train", "val", "test") if k != wanted)]
    found = next((kind for kind in order if data_cfg.get(f"{kind}_dataloader")), None)
    if found is None:
        where = "the model config" if own else "the calibration config"
        raise KeyError(f"{where} has no {wanted}_dataloader to calibrate with")
    if found != wanted:
        _logger().warning(f"no {wanted}_dataloader to calibrate with: {found}_dataloader is taken")
    return found


def _evaluation_pipeline(model_cfg: Mapping[str, Any]) -> Any:
    """Augmented images are not what the engine will see."""
    for kind in ("test", "val"):
        loader = model_cfg.get(f"{kind}_dataloader")
        if loader and "pipeline" in loader["dataset"]:
            return deepcopy(loader["dataset"]["pipeline"])
    return None


def _warn_of_evaluation_data(dataset: Mapping[str, Any], model_cfg: Mapping[str, Any]) -> None:
    evaluated = model_cfg.get("test_dataloader") or {}
    if evaluated and _identity(dataset) == _identity(dict(evaluated["dataset"])):
        _logger().warning(
            "calibration and evaluation read the same images: the accuracy will not be that of unseen data; give "
            "training data (--calib-dataset-cfg, or calib_config.dataset_type = 'train')"
        )


def _identity(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """What says which images a data set holds; how they are read does not."""
    return {key: value for key, value in dataset.items() if key not in {"pipeline", "indices", "lazy_init"}}


class CalibrationSubset:
    """``num_samples`` of a data set, drawn evenly from a fixed permutation of it."""

    def __init__(self, dataset: Mapping[str, Any], num_samples: int, seed: int = 0) -> None:
        from mmengine.registry import DATASETS

        self.dataset = DATASETS.build(dict(dataset))
        if hasattr(self.dataset, "full_init"):
            self.dataset.full_init()
        count = len(self.dataset)
        self.indices = np.random.default_rng(seed).permutation(count)[: min(num_samples, count)]
        self.metainfo = getattr(self.dataset, "metainfo", {})

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]


def register_subset() -> None:
    """Make the subset known to configs."""
    from razordeploy.registry import DATASETS

    DATASETS.register_module(name=_SUBSET, module=CalibrationSubset, force=True)


class CalibrationFile:
    """The images of a ``calib_data.h5``, batch by batch, as often as they are asked for.

    Args:
        path: what ``create_calib_input_data`` wrote: float32 arrays, preprocessed, under
            ``calib_data/end2end/<input>/<number>``.
        input_names: the graph's inputs; a file with one input fits a graph with one, whatever their names.
        batch_size: images in a batch; those of another size begin a new one.
    """

    def __init__(self, path: Path, input_names: list[str], batch_size: int = 32) -> None:
        import h5py

        self.path, self.batch_size = path, batch_size
        with h5py.File(path) as file:
            group = file["calib_data/end2end"]
            stored = list(group)
            matching = all(name in stored for name in input_names)
            self.groups = input_names if matching else stored[: len(input_names)]
            self.count = len(group[self.groups[0]])

    def first(self, count: int) -> tuple[torch.Tensor, ...]:
        """``count`` images, repeated where there are fewer."""
        batch = next(iter(self))
        return tuple(x[torch.arange(count) % len(x)] for x in batch)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        import h5py

        with h5py.File(self.path) as file:
            group = file["calib_data/end2end"]
            waiting: list[tuple[np.ndarray, ...]] = []
            for i in range(self.count):
                sample = tuple(group[name][str(i)][()] for name in self.groups)
                if waiting and (len(waiting) == self.batch_size or waiting[0][0].shape != sample[0].shape):
                    yield _stacked(waiting)
                    waiting = []
                waiting.append(sample)
            if waiting:
                yield _stacked(waiting)


def _stacked(samples: list[tuple[np.ndarray, ...]]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(np.concatenate(column)) for column in zip(*samples, strict=True))


def _logger() -> logging.Logger:
    from mmdeploy.utils import get_root_logger

    logger: logging.Logger = get_root_logger()
    return logger
