"""Validation loops that tell student and teacher apart."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.runner import ValLoop, autocast

from razordeploy.compress.algorithm.base import unwrap
from razordeploy.errors import RecipeError


class SelfDistillValLoop(ValLoop):
    """Validates the student; its metrics are called ``student.*``."""

    def run(self) -> dict[str, float]:
        """One pass over the validation data."""
        self.runner.call_hook("before_val")
        self.runner.call_hook("before_val_epoch")
        self.runner.model.eval()
        metrics = {f"student.{key}": value for key, value in self.validate(self.runner.model).items()}
        self.runner.call_hook("after_val_epoch", metrics=metrics)
        self.runner.call_hook("after_val")
        return metrics

    def validate(self, model: Any) -> dict[str, float]:
        """Metrics of ``model`` on the validation data."""
        for index, data in enumerate(self.dataloader):
            self.run_batch(model, index, data)
        found: dict[str, float] = self.evaluator.evaluate(len(self.dataloader.dataset))
        return found

    @torch.no_grad()
    def run_batch(self, model: Any, index: int, data: Any) -> None:
        """One batch through ``model``."""
        self.runner.call_hook("before_val_iter", batch_idx=index, data_batch=data)
        with autocast(enabled=self.fp16):
            outputs = model.val_step(data)
        self.evaluator.process(data_samples=outputs, data_batch=data)
        self.runner.call_hook("after_val_iter", batch_idx=index, data_batch=data, outputs=outputs)


class SingleTeacherDistillValLoop(SelfDistillValLoop):
    """Validates the student, whose metrics keep their names, and the teacher, whose are called ``teacher.*``.

    The teacher does not change: it is validated once.
    """

    def __init__(self, runner: Any, dataloader: Any, evaluator: Any, fp16: bool = False) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        algorithm: Any = unwrap(runner.model)
        if getattr(algorithm, "teacher", None) is None:
            raise RecipeError(
                f"SingleTeacherDistillValLoop: {type(algorithm).__name__} has no teacher",
                hint="use SelfDistillValLoop",
            )
        self.algorithm = algorithm
        self.teacher_metrics: dict[str, float] | None = None

    def run(self) -> dict[str, float]:
        """One pass over the validation data with each."""
        self.runner.call_hook("before_val")
        self.runner.call_hook("before_val_epoch")
        self.runner.model.eval()
        metrics = self.validate(self.runner.model)
        if self.teacher_metrics is None or self.algorithm.teacher_trainable:
            found = self.validate(_Teacher(self.algorithm))
            self.teacher_metrics = {f"teacher.{key}": value for key, value in found.items()}
        metrics = {**metrics, **self.teacher_metrics}
        self.runner.call_hook("after_val_epoch", metrics=metrics)
        self.runner.call_hook("after_val")
        return metrics


class _Teacher:
    """The teacher behind the algorithm's own preprocessor."""

    def __init__(self, algorithm: Any) -> None:
        self.algorithm = algorithm

    def val_step(self, data: Any) -> Any:
        batch = self.algorithm.data_preprocessor(data, False)
        inputs, samples = batch["inputs"], batch.get("data_samples", batch.get("targets"))
        return self.algorithm.teacher(inputs, samples, mode="predict")
