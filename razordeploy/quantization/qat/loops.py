"""mmengine loops of quantization-aware training, and of calibration, under mmrazor's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce_params, is_distributed, is_main_process
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch import nn

from razordeploy.config.qat import NEVER
from razordeploy.quantization.fake_quants.base import FakeQuantizeBase
from razordeploy.quantization.qat import phases
from razordeploy.train.runner import save_state_dict


class QATEpochBasedLoop(EpochBasedTrainLoop):
    """Epochs with rounded values; the state that a checkpoint is written in is that of validation.

    Args:
        runner: of the run.
        dataloader: training data.
        max_epochs: epochs.
        val_begin: first epoch to validate after.
        val_interval: epochs between two validations.
        disable_observer_begin: epoch, from 1, from which observed ranges stay as they are; -1: never.
        freeze_bn_begin: epoch, from 1, from which batch norms use their running statistics; -1: never.
        dynamic_intervals: as in mmengine.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        disable_observer_begin: int = NEVER,
        freeze_bn_begin: int = NEVER,
        dynamic_intervals: Any = None,
    ) -> None:
        super().__init__(runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals)
        self.disable_observer_begin = disable_observer_begin
        self.freeze_bn_begin = freeze_bn_begin

    def run_epoch(self) -> None:
        """One epoch, from switching the phase on to the checkpoint."""
        model = self.runner.model
        self.runner.call_hook("before_train_epoch")
        model.train()
        phases.train_phase(model, observe=not self._reached(self.disable_observer_begin))
        phases.freeze_norms(model, self._reached(self.freeze_bn_begin))
        for index, batch in enumerate(self.dataloader):
            self.run_iter(index, batch)
        if is_distributed():
            _average_state(model)
        # Before the hooks, one of which saves.
        phases.validation_phase(model)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _reached(self, begin: int) -> bool:
        return begin > 0 and self._epoch + 1 >= begin


class LSQEpochBasedLoop(QATEpochBasedLoop):
    """Epochs in which scales are learned; those that have none yet take it from the first batch, once.

    Whether a scale was set is part of the checkpoint, so that a resumed run goes on with it. Where several processes
    train, the first scales are the mean of theirs.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        freeze_bn_begin: int = NEVER,
        dynamic_intervals: Any = None,
    ) -> None:
        super().__init__(
            runner,
            dataloader,
            max_epochs,
            val_begin,
            val_interval,
            disable_observer_begin=1,
            freeze_bn_begin=freeze_bn_begin,
            dynamic_intervals=dynamic_intervals,
        )

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """One step; before the first, scales that are missing are estimated on its batch."""
        missing = phases.uninitialised(self.runner.model)
        if missing:
            for quant in missing:
                quant.enable_static_estimate()
            _forward(self.runner.model, data_batch)
            if is_distributed():
                _synchronise(missing)
            for quant in missing:
                quant.enable_param_learning()
        super().run_iter(idx, data_batch)


class QATValLoop(ValLoop):
    """Validates the quantized model, and the float model of the same weights.

    The metrics are called ``qat.<metric>`` and ``original.<metric>``; ``run`` returns both.
    """

    def run(self) -> dict[str, float]:
        """Validate twice."""
        self.runner.call_hook("before_val")
        self.runner.call_hook("before_val_epoch")
        model = self.runner.model
        model.eval()
        phases.validation_phase(model)
        metrics = {f"qat.{name}": value for name, value in self._evaluated().items()}
        phases.float_phase(model)
        metrics.update({f"original.{name}": value for name, value in self._evaluated().items()})
        phases.validation_phase(model)
        self.runner.call_hook("after_val_epoch", metrics=metrics)
        self.runner.call_hook("after_val")
        return metrics

    def _evaluated(self) -> dict[str, float]:
        for index, batch in enumerate(self.dataloader):
            self.run_iter(index, batch)
        found: dict[str, float] = self.evaluator.evaluate(len(self.dataloader.dataset))
        return found


class PTQLoop(TestLoop):
    """Calibrates the model, writes ``model_ptq.pth`` and validates.

    Values are observed in float, and the ranges of several processes are joined.

    Args:
        runner: of the run.
        dataloader: the test data.
        evaluator: its metrics.
        calibrate_dataloader: what is calibrated on.
        calibrate_steps: batches of it; -1: all.
        fp16: as in mmengine.
        only_val: the model is calibrated already.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        evaluator: Any,
        calibrate_dataloader: Any,
        calibrate_steps: int = 32,
        fp16: bool = False,
        only_val: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        if isinstance(calibrate_dataloader, dict):
            calibrate_dataloader = runner.build_dataloader(calibrate_dataloader, seed=runner.seed)
        self.calibrate_dataloader, self.calibrate_steps = calibrate_dataloader, calibrate_steps
        self.only_val = only_val

    def run(self) -> Any:
        """Calibrate, save, validate; returns the metrics."""
        if not self.only_val:
            self._calibrate()
        if self.runner._val_loop is None:
            return super().run()
        return self.runner.val_loop.run()

    def _calibrate(self) -> None:
        model = self.runner.model
        model.eval()
        phases.calibration_phase(model)
        for index, batch in enumerate(self.calibrate_dataloader):
            if index == self.calibrate_steps:
                break
            _forward(model, batch)
        quants = [m for m in model.modules() if isinstance(m, FakeQuantizeBase)]
        if is_distributed():
            _synchronise(quants)
        phases.validation_phase(model)
        if is_main_process():
            save_state_dict(_bare(model), Path(self.runner.work_dir) / "model_ptq.pth")


def _bare(model: nn.Module) -> Any:
    return getattr(model, "module", model) if is_distributed() else model


@torch.no_grad()
def _forward(model: nn.Module, batch: Any) -> None:
    """Run a training batch through the model without its loss."""
    bare = _bare(model)
    data = bare.data_preprocessor(batch, False)
    bare(data["inputs"], mode="tensor")


def _synchronise(quants: list[Any]) -> None:
    """Give every process the mean of the scales and zero points; a zero point is rounded again."""
    for quant in quants:
        if not quant.initialized:
            continue
        q = quant.qparams
        zero = q.zero_point.float()
        all_reduce_params([q.scale, zero], op="mean")
        quant.set_qparams(type(q)(scale=q.scale, zero_point=zero.round().long(), scheme=q.scheme))


def _average_state(model: nn.Module) -> None:
    """Give every process the mean of running statistics and ranges; what is counted stays each one's own."""
    buffers = [b for b in model.buffers() if b.is_floating_point() and b.numel()]
    all_reduce_params(buffers, op="mean")


LOOPS: dict[str, type] = {
    "LSQEpochBasedLoop": LSQEpochBasedLoop,
    "PTQLoop": PTQLoop,
    "QATEpochBasedLoop": QATEpochBasedLoop,
    "QATValLoop": QATValLoop,
}
