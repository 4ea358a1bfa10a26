"""Mean average precision of what a detector's raw maps decode to, by mmdet's own evaluator."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from razordeploy.errors import DataError, RecipeError

MAIN = "bbox_mAP"


class BoxMetric:
    """Decodes outputs, suppresses, and asks mmdet's evaluator; figures in percent, ``bbox_mAP`` first.

    One object serves one pass after another: ``compute`` starts anew.

    Args:
        evaluator: mmengine's ``test_evaluator`` section, for example ``dict(type='CocoMetric', ann_file=...)``.
        meta: ``metainfo`` of the data set: class names.
        decode: raw maps and metainfo of each image -> instances.
        samples: number of an image in the stream -> its data sample.
    """

    def __init__(
        self,
        evaluator: Any,
        meta: Mapping[str, Any],
        decode: Callable[[Any, Any], list[Any]],
        samples: Mapping[int, Any],
    ) -> None:
        self._evaluator_config, self._meta = evaluator, dict(meta)
        self._decode, self._samples = decode, samples
        self._evaluator: Any = None
        self._seen = 0

    def update(self, outputs: Any, targets: np.ndarray) -> None:
        """Take one batch: the head's maps (N, C, H, W), and the numbers of its images."""
        maps = outputs if isinstance(outputs, tuple | list) else (outputs,)
        samples = [copy.copy(self._samples[int(number)]) for number in targets]
        metas = [sample.metainfo for sample in samples]
        instances = self._decode([torch.from_numpy(np.ascontiguousarray(m)) for m in maps], metas)
        for sample, found in zip(samples, instances, strict=True):
            sample.pred_instances = found
        with _quiet():
            self._open().process(data_samples=samples, data_batch=None)
        self._seen += len(samples)

    def compute(self) -> dict[str, float]:
        """``bbox_mAP``, ``bbox_mAP_50`` ... in percent; 0 where nothing is detected."""
        with _quiet():
            found = self._open().evaluate(self._seen)
        self._evaluator, self._seen = None, 0
        figures = {key.rpartition("/")[2]: 100.0 * float(value) for key, value in found.items() if float(value) >= 0}
        key = next((k for k in figures if k == MAIN or k == "mAP"), None)
        main = 0.0 if key is None else figures.pop(key)
        return {MAIN: main, **{k: v for k, v in figures.items() if k.startswith(("bbox_mAP_", "AP"))}}

    def _open(self) -> Any:
        if self._evaluator is None:
            from mmengine.evaluator import Evaluator
            from mmengine.registry import DefaultScope

            config = copy.deepcopy(self._evaluator_config)
            try:
                with DefaultScope.overwrite_default_scope("mmdet"):
                    self._evaluator = Evaluator(config)
            except (OSError, KeyError) as error:
                raise DataError(f"test_evaluator cannot be built: {type(error).__name__}: {error}") from error
            self._evaluator.dataset_meta = self._meta
        return self._evaluator


def evaluator_section(config: Mapping[str, Any], where: str) -> Any:
    """``test_evaluator`` of a config, or ``val_evaluator``.

    Raises:
        RecipeError: there is neither.
    """
    found = config.get("test_evaluator") or config.get("val_evaluator")
    if not found:
        raise RecipeError(f"{where}: no test_evaluator", hint="test_evaluator=dict(type='CocoMetric', ann_file=...)")
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the tables that pycocotools prints."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
