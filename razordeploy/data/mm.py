"""Batches from OpenMMLab dataloader configs, preprocessed as the model's own ``data_preprocessor`` does."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from razordeploy import lazy
from razordeploy.data.batch import Batch
from razordeploy.data.convert import mm_labels, mm_names, split_item
from razordeploy.errors import DataError

Preprocess = Callable[[Any, bool], Any]


@contextlib.contextmanager
def registry_scope(scope: str) -> Iterator[None]:
    """Import all that ``mmcls`` or ``mmpretrain`` registers; inside the block its names are found first.

    The default scope is put back afterwards: a training run in the same process has its own.

    Raises:
        MissingDependency: the package is not installed.
    """
    lazy.require("mmengine", extra="mmcls")
    from mmengine.registry import DefaultScope

    if scope != "mmengine":
        lazy.require(scope, extra="openmmlab" if scope == "mmpretrain" else scope)
        with warnings.catch_warnings():
            # mmcv-lite, the build that installs everywhere, says so on import; classification needs none of those ops.
            warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")
            importlib.import_module(f"{scope}.utils").register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope(scope):
        yield


def build_preprocessor(config: Mapping[str, Any] | None, scope: str = "mmcls") -> nn.Module:
    """Build a model's ``data_preprocessor`` section; without one, what mmengine gives a model by default."""
    section = dict(config or {})
    section.setdefault("type", "ClsDataPreprocessor" if config else "BaseDataPreprocessor")
    with registry_scope(scope):
        from mmengine.registry import MODELS

        return MODELS.build(section)


def calibration_loader(config: Mapping[str, Any], batch_size: int = 32) -> dict[str, Any]:
    """A dataloader dict over the training images, read through the test pipeline, shuffled.

    The training pipeline crops and flips at random: calibrating on that widens ranges the deployed model never sees.

    Args:
        config: an OpenMMLab config with ``train_dataloader`` and ``test_dataloader`` or ``val_dataloader``.
        batch_size: samples per batch.
    """
    train = config.get("train_dataloader")
    if not isinstance(train, Mapping) or "dataset" not in train:
        raise DataError("expected train_dataloader=dict(dataset=...) in the config, found none to calibrate on")
    test = config.get("test_dataloader") or config.get("val_dataloader")
    pipeline = _pipeline(test["dataset"]) if isinstance(test, Mapping) and "dataset" in test else None
    pipeline = pipeline or config.get("test_pipeline")
    if pipeline is None:
        raise DataError(
            "expected a test pipeline for calibration, found neither test_dataloader nor val_dataloader with one",
            hint="add test_dataloader=dict(dataset=dict(pipeline=[...])) to the config",
        )
    loader: dict[str, Any] = {
        "dataset": _with_pipeline(train["dataset"], pipeline),
        "sampler": {"type": "DefaultSampler", "shuffle": True},
        "batch_size": batch_size,
        # Starting workers costs more than the few hundred images that calibration reads.
        "num_workers": 0,
    }
    if "collate_fn" in train:
        loader["collate_fn"] = copy.deepcopy(train["collate_fn"])
    return loader


def mm_batches(
    dataloader: Any,
    preprocess: Preprocess | nn.Module | None,
    num_samples: int | None = None,
    seed: int = 0,
    scope: str = "mmcls",
) -> Iterator[Batch]:
    """Yield batches of a dataloader dict (or a built ``DataLoader``), preprocessed for inference.

    Args:
        dataloader: as in ``test_dataloader = dict(dataset=..., sampler=..., batch_size=...)``.
        preprocess: the model's data preprocessor, called as ``preprocess(data, False)``; None: inputs as they come.
        num_samples: stop after this many; None: all.
        seed: of a shuffling sampler.
        scope: the package whose registry is meant.

    Raises:
        DataError: the dataloader cannot be built, or one of its files cannot be read.
    """
    with registry_scope(scope):
        loader = open_loader(dataloader, seed)
    left = num_samples
    for index, data in enumerate(read_loader(loader)):
        batch = _batch(data, preprocess, f"batch {index}")
        if left is not None:
            batch = batch.head(left)
            left -= len(batch)
        yield batch
        if left == 0:
            return


def dataset_meta(dataloader: Mapping[str, Any], scope: str) -> dict[str, Any]:
    """``metainfo`` of the data set of a dataloader dict: class names and what belongs to them.

    Raises:
        DataError: it cannot be built.
    """
    with registry_scope(scope):
        loader = open_loader(dataloader, 0)
    return dict(getattr(loader.dataset, "metainfo", {}))


def open_loader(dataloader: Any, seed: int) -> Any:
    """Build a dataloader dict, in order unless it names a sampler; inside the registry scope of its data set.

    Raises:
        DataError: it cannot be built.
    """
    from mmengine.runner import Runner

    if isinstance(dataloader, Mapping):
        # mmengine asks for a sampler; data order is the only sensible default for evaluation.
        dataloader = {"sampler": {"type": "DefaultSampler", "shuffle": False}, **copy.deepcopy(dict(dataloader))}
        if not dataloader.get("num_workers"):
            dataloader.pop("persistent_workers", None)
    try:
        # pycocotools says on standard output that it reads.
        with contextlib.redirect_stdout(io.StringIO()):
            return Runner.build_dataloader(dataloader, seed=seed)
    except (OSError, KeyError, TypeError, ValueError, AssertionError, RuntimeError) as exc:
        raise DataError(f"cannot build the dataloader: {type(exc).__name__}: {exc}") from exc


def read_loader(loader: Any) -> Iterator[Any]:
    """Yield what the loader does.

    Raises:
        DataError: something in it cannot be read.
    """
    iterator = iter(loader)
    index = 0
    while True:
        try:
            data = next(iterator)
        except StopIteration:
            return
        # Only what reading raises is the data's fault; mmcv reports an unreadable image as an AssertionError.
        except (OSError, AssertionError, ValueError, SyntaxError, AttributeError) as exc:
            raise DataError(f"cannot read batch {index} of the dataloader: {type(exc).__name__}: {exc}") from exc
        yield data
        index += 1


def _batch(data: Any, preprocess: Preprocess | nn.Module | None, where: str) -> Batch:
    if not isinstance(data, Mapping) or "inputs" not in data:
        found = f"a dict with {', '.join(map(str, data))}" if isinstance(data, Mapping) else type(data).__name__
        raise DataError(f"{where}: expected a dict with 'inputs' and 'data_samples', got {found}")
    if preprocess is not None:
        data = preprocess(data, False)
    inputs, target = split_item({"inputs": data["inputs"]}, where)
    samples = data.get("data_samples")
    labels: Tensor | None = mm_labels(samples)
    return Batch(inputs, target if labels is None else labels, mm_names(samples))


def _pipeline(dataset: Mapping[str, Any]) -> Any:
    if dataset.get("pipeline"):
        return dataset["pipeline"]
    inner = dataset.get("dataset") or next(iter(dataset.get("datasets") or ()), None)
    return _pipeline(inner) if isinstance(inner, Mapping) else None


def _with_pipeline(dataset: Mapping[str, Any], pipeline: Any) -> dict[str, Any]:
    # Wrappers (RepeatDataset, ConcatDataset, ...) hold the data set in `dataset` or `datasets`.
    result = dict(copy.deepcopy(dataset))
    if isinstance(result.get("dataset"), Mapping):
        result["dataset"] = _with_pipeline(result["dataset"], pipeline)
    elif result.get("datasets"):
        result["datasets"] = [_with_pipeline(d, pipeline) for d in result["datasets"]]
    else:
        result["pipeline"] = copy.deepcopy(pipeline)
    return result
