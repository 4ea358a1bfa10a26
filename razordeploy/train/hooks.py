"""mmengine hooks of a training run."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from mmengine.hooks import Hook

from razordeploy.errors import ModelError


class EpochSeed(Hook):
    """Seeds every epoch by itself, so that a resumed run draws what the uninterrupted one would have drawn."""

    priority = "VERY_HIGH"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_epoch(self, runner: Any) -> None:
        """Seed torch's generators for this epoch."""
        torch.manual_seed(self.seed + 7919 * (runner.epoch + 1))


class PlainCheckpoint(Hook):
    """Leaves only tensors and plain values in mmengine's checkpoints.

    Its history buffers are classes of its own, which ``torch.load(weights_only=True)``, the default since torch 2.6,
    refuses: mmengine could not resume from what it wrote (open-mmlab/mmengine issue 1655).
    """

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Drop the log history, keep which files are to be deleted next."""
        info = checkpoint["message_hub"]["runtime_info"]
        kept = {key: list(info[key]) for key in ("keep_ckpt_ids",) if key in info}
        checkpoint["message_hub"] = {
            "log_scalars": {},
            "runtime_info": kept,
            "resumed_keys": dict.fromkeys(kept, True),
        }


class Progress(Hook):
    """One line per epoch for the screen: loss, learning rate, what is left. Stops a run whose loss is not finite."""

    priority = "LOW"

    def before_train(self, runner: Any) -> None:
        """Note where and when the run starts."""
        self._started, self._first = time.monotonic(), runner.epoch

    def before_train_epoch(self, runner: Any) -> None:
        """Forget the last epoch's losses."""
        self._losses: list[torch.Tensor] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Gather the loss; on the device, as reading it here would wait for every step."""
        self._losses.append(torch.as_tensor((outputs or {})["loss"]).detach())

    def after_train_epoch(self, runner: Any) -> None:
        """Log the line.

        Raises:
            ModelError: the mean loss is NaN or infinite; nothing of this epoch is saved.
        """
        loss = float(torch.stack(self._losses).mean())
        epoch = runner.epoch + 1
        if not math.isfinite(loss):
            raise ModelError(f"the loss is {loss} in epoch {epoch}", hint="lower train.lr, or check the data for NaN")
        left = (time.monotonic() - self._started) / (epoch - self._first) * (runner.max_epochs - epoch)
        rate = runner.optim_wrapper.get_lr()["lr"][0]
        line = f"epoch {epoch}/{runner.max_epochs}  loss {loss:.4f}  lr {rate:.2e}  {left:.0f} s left"
        runner.logger.info(line, extra={"screen": True})
