"""Accuracy of anything that maps arrays to arrays: the float model, the simulation, an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from razordeploy.data.batch import Batch
from razordeploy.errors import DataError, ModelError, RecipeError, nearest

Predict = Callable[..., Any]
"""``predict(*inputs: np.ndarray) -> np.ndarray | tuple``, as engines are called."""


class Metric(Protocol):
    """A figure that is gathered batch by batch."""

    def update(self, outputs: Any, targets: np.ndarray) -> None:
        """Take one batch: what ``predict`` returned and int64 (N,) labels."""

    def compute(self) -> dict[str, float]:
        """The figures over all batches."""


class TopK:
    """Percent of samples whose label has the highest, or one of the five highest, logits.

    Equal logits (common on an int8 grid) rank by class index, as ``argmax`` does.
    """

    def __init__(self) -> None:
        self._hits = {1: 0, 5: 0}
        self._samples = 0
        self._classes = 0

    def update(self, outputs: Any, targets: np.ndarray) -> None:
        """Take logits (N, classes), the first of several outputs, and labels (N,)."""
        logits = np.asarray(outputs[0] if isinstance(outputs, (tuple, list)) else outputs)
        if logits.ndim != 2 or len(logits) != len(targets):
            raise ModelError(f"expected logits ({len(targets)}, classes) for top-1, got shape {logits.shape}")
        self._classes = logits.shape[1]
        if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < self._classes:
            raise DataError(
                f"expected labels from 0 to {self._classes - 1}, got {int(targets.min())} to {int(targets.max())}",
                hint="the model and the data set do not have the same classes",
            )
        own = logits[np.arange(len(targets)), targets][:, None]
        earlier = np.arange(self._classes)[None] < targets[:, None]
        rank = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
        for k in self._hits:
            self._hits[k] += int((rank < k).sum())
        self._samples += len(targets)

    def compute(self) -> dict[str, float]:
        """``top1`` in percent, and ``top5`` where there are more than five classes."""
        shown = (1, 5) if self._classes > 5 else (1,)
        return {f"top{k}": 100.0 * self._hits[k] / self._samples for k in shown}


METRICS: dict[str, Callable[[], Metric]] = {"top1": TopK}


def evaluate(
    predict: Predict,
    batches: Iterable[Batch],
    metric: str | Metric | Callable[[Any, np.ndarray], Mapping[str, float]] = "top1",
) -> dict[str, float]:
    """Run ``predict`` over ``batches`` and return the metric's figures and ``samples``.

    Args:
        predict: called with one numpy array per input; returns an array or a tuple of arrays.
        batches: labelled batches, read once.
        metric: a name in :data:`METRICS`; an object with ``update`` and ``compute`` (constant memory); or a function
            ``(outputs, targets) -> dict``, called once with all batches put together, so that it need not be a mean.

    Raises:
        DataError: no sample, or a batch without labels.
        ModelError: an output that is NaN, or not of the expected shape.
    """
    gather = _metric(metric)
    samples = 0
    for index, batch in enumerate(batches):
        if batch.target is None:
            raise DataError(f"batch {index}: expected labels to evaluate on, got none", hint="yield (inputs, target)")
        outputs = _arrays(predict(*(x.detach().cpu().numpy() for x in batch.inputs)))
        _refuse_nan(outputs, index)
        gather.update(outputs, batch.target.detach().cpu().numpy())
        samples += len(batch)
    if samples == 0:
        raise DataError("expected at least one sample to evaluate on, got none")
    return {**gather.compute(), "samples": samples}


def module_predict(model: nn.Module) -> Predict:
    """``predict`` of a torch module, in eval mode on its own device; its training mode is put back after each call."""

    def predict(*inputs: np.ndarray) -> Any:
        parameter = next(model.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                outputs = model(*(torch.as_tensor(x, device=device) for x in inputs))
        finally:
            model.train(training)
        if isinstance(outputs, (tuple, list)):
            return tuple(y.cpu().numpy() for y in outputs)
        return outputs.cpu().numpy()

    return predict


class _Collected:
    # A figure such as an F1 score is not the mean of its batches' figures, so a plain function sees everything once.
    def __init__(self, function: Callable[[Any, np.ndarray], Mapping[str, float]]) -> None:
        self._function = function
        self._outputs: list[Any] = []
        self._targets: list[np.ndarray] = []

    def update(self, outputs: Any, targets: np.ndarray) -> None:
        self._outputs.append(outputs)
        self._targets.append(targets)

    def compute(self) -> dict[str, float]:
        if isinstance(self._outputs[0], tuple):
            outputs: Any = tuple(np.concatenate(column) for column in zip(*self._outputs, strict=True))
        else:
            outputs = np.concatenate(self._outputs)
        figures = self._function(outputs, np.concatenate(self._targets))
        if not isinstance(figures, Mapping):
            raise RecipeError(f"expected a dict of figures from the metric, got {type(figures).__name__}")
        return {str(name): float(value) for name, value in figures.items()}


def _metric(metric: Any) -> Metric:
    if isinstance(metric, str):
        if metric not in METRICS:
            raise RecipeError(f"unknown metric {metric!r}", hint=nearest(metric, METRICS))
        return METRICS[metric]()
    if hasattr(metric, "update") and hasattr(metric, "compute"):
        return metric
    if callable(metric):
        return _Collected(metric)
    raise RecipeError(f"expected a metric's name or a function (outputs, targets) -> dict, got {type(metric).__name__}")


def _arrays(outputs: Any) -> Any:
    if isinstance(outputs, (tuple, list)):
        return tuple(np.asarray(y) for y in outputs)
    return np.asarray(outputs)


def _refuse_nan(outputs: Any, index: int) -> None:
    for position, y in enumerate(outputs if isinstance(outputs, tuple) else (outputs,)):
        bad = int(np.isnan(y).sum()) if y.dtype.kind == "f" else 0
        if bad:
            raise ModelError(
                f"output {position} holds NaN in {bad} of {y.size} values at batch {index}",
                hint="check the weights for NaN, and the input's preprocessing",
            )
