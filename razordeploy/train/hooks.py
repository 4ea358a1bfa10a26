"""mmengine hooks of a training run."""

from __future__ import annotations

import math
import random
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
        """Seed torch's and Python's generators for this epoch."""
        torch.manual_seed(self.seed + 7919 * (runner.epoch + 1))
        # What subnets are sampled by.
        random.seed(self.seed + 7919 * (runner.epoch + 1))


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
    """One line for the screen now and then: loss, learning rate, what is left. Stops a run whose loss is not finite.

    Args:
        interval: iterations between two lines; None: once per epoch.
    """

    priority = "LOW"

    def __init__(self, interval: int | None = None) -> None:
        self.interval = interval

    def before_train(self, runner: Any) -> None:
        """Note where and when the run starts."""
        self._started, self._first = time.monotonic(), self._done(runner)
        self._losses: list[torch.Tensor] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Gather the loss; on the device, as reading it here would wait for every step."""
        self._losses.append(torch.as_tensor((outputs or {})["loss"]).detach())
        if self.interval is not None and (runner.iter + 1) % self.interval == 0:
            self._line(runner)

    def after_train_epoch(self, runner: Any) -> None:
        """Log the line.

        Raises:
            ModelError: the mean loss is NaN or infinite; nothing of this epoch is saved.
        """
        if self.interval is None:
            self._line(runner)

    def _done(self, runner: Any) -> int:
        done: int = runner.epoch if self.interval is None else runner.iter
        return done

    def _line(self, runner: Any) -> None:
        loss = float(torch.stack(self._losses).mean())
        self._losses = []
        done, noun = self._done(runner) + 1, "epoch" if self.interval is None else "iteration"
        whole = runner.max_epochs if self.interval is None else runner.max_iters
        if not math.isfinite(loss):
            hint = "lower the learning rate, or check the data for NaN"
            raise ModelError(f"the loss is {loss} in {noun} {done}", hint=hint)
        left = (time.monotonic() - self._started) / (done - self._first) * (whole - done)
        rate = next(iter(runner.optim_wrapper.get_lr().values()))[0]
        line = f"{noun} {done}/{whole}  loss {loss:.4f}  lr {rate:.2e}  {left:.0f} s left"
        runner.logger.info(line, extra={"screen": True})
