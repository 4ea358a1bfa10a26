"""Hooks of every algorithm's run."""

from __future__ import annotations

import math
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop

from razordeploy.compress.algorithm.base import Schedule, unwrap


class ScheduleHook(Hook):
    """Tells the algorithm where the run is, in one that was resumed too."""

    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Before each step."""
        algorithm: Any = unwrap(runner.model)
        length = max(1, len(runner.train_dataloader))
        by_steps = isinstance(runner.train_loop, IterBasedTrainLoop)
        epochs = math.ceil(runner.max_iters / length) if by_steps else runner.max_epochs
        epoch = runner.iter // length if by_steps else runner.epoch
        algorithm.schedule = Schedule(iteration=runner.iter, epoch=epoch, epoch_length=length, epochs=epochs)
