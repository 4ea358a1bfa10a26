"""mmengine hooks of a distillation."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

from razordeploy.compress.algorithm.base import unwrap
from razordeploy.compress.algorithm.build import build
from razordeploy.compress.distill.connectors.factor_transfer import Paraphraser
from razordeploy.compress.distill.distillers.configurable import ConfigurableDistiller, Record
from razordeploy.compress.distill.losses.table import LOSSES
from razordeploy.errors import ModelError, RecipeError


class StopDistillHook(Hook):
    """Goes on with the student's own losses alone from an epoch on.

    Args:
        stop_epoch: the first epoch, from 0, without distillation.
    """

    priority = "LOW"

    def __init__(self, stop_epoch: int) -> None:
        self.stop_epoch = stop_epoch

    def before_train_epoch(self, runner: Any) -> None:
        """Stop, in a run that was resumed later too.

        Raises:
            RecipeError: the model is no distillation.
        """
        model: Any = unwrap(runner.model)
        if not hasattr(model, "distillation_stopped"):
            raise RecipeError(f"StopDistillHook: {type(model).__name__} does not distil")
        stop = runner.epoch >= self.stop_epoch
        if stop and not model.distillation_stopped:
            runner.logger.info(f"distillation stops at epoch {runner.epoch}")
        model.distillation_stopped = stop


class ConnectorPretrainHook(Hook):
    """Trains the connectors that have a ``pretrain_criterion`` on the teacher's features, before the student.

    Args:
        epochs: passes over the training data.
        lr: of Adam.
    """

    priority = "LOW"

    def __init__(self, epochs: int = 1, lr: float = 1e-3) -> None:
        if epochs < 1 or not lr > 0:
            raise RecipeError(f"ConnectorPretrainHook: expected epochs of 1 or more and lr above 0, got {epochs}, {lr}")
        self.epochs, self.lr = epochs, lr

    def before_train(self, runner: Any) -> None:
        """Train, and let the connectors give factors from then on; a resumed run has trained them already."""
        model: Any = unwrap(runner.model)
        waiting = waiting_connectors(model.distiller)
        if not waiting:
            raise RecipeError("ConnectorPretrainHook: no connector has a pretrain_criterion and phase='pretrain'")
        if runner.epoch == 0 and runner.iter == 0:
            for name, (connector, record) in waiting.items():
                loss = self._train(model, connector, record, runner.train_dataloader)
                runner.logger.info(f"connector '{name}' is pretrained, loss {loss:.4g}")
        for connector, _ in waiting.values():
            connector.set_phase("train")

    def _train(self, model: Any, connector: Paraphraser, record: Record, loader: Any) -> float:
        assert connector.pretrain_criterion is not None
        criterion = build(connector.pretrain_criterion, LOSSES, "pretrain_criterion")
        optimizer = torch.optim.Adam(connector.parameters(), lr=self.lr)
        loss = torch.zeros(())
        connector.train()
        for _ in range(self.epochs):
            for data in loader:
                feature = _teacher_feature(model, record, data)
                loss = criterion(connector.forward_pretrain(feature), feature)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        model.distiller.reset_data_buffer()
        return float(loss.detach())


def waiting_connectors(distiller: ConfigurableDistiller) -> dict[str, tuple[Paraphraser, Record]]:
    """Connectors that are to be pretrained in this run, with the record that they are given."""
    found: dict[str, tuple[Paraphraser, Record]] = {}
    for arguments in distiller.mappings.values():
        for records in arguments.values():
            for record in records if isinstance(records, list) else [records]:
                connector = distiller.connectors[record.connector] if record.connector else None
                if (
                    isinstance(connector, Paraphraser)
                    and connector.phase == "pretrain"
                    and connector.pretrain_criterion
                ):
                    found[str(record.connector)] = (connector, record)
    return found


class CheckFirstBatch(Hook):
    """Computes the losses of one batch on a copy of the model, so that a wrong recipe fails before training starts."""

    priority = "NORMAL"

    def before_train(self, runner: Any) -> None:
        """Compute, and leave no trace.

        Raises:
            ModelError: something is not recorded, shapes do not fit, a loss is not finite, or a connector would never
                be pretrained.
        """
        model: Any = unwrap(runner.model)
        if not hasattr(model, "check_batch"):
            return
        with _same_randomness(model):
            copied: Any = copy.deepcopy(model).train()
            distiller = getattr(copied, "distiller", None)
            waiting = {} if distiller is None else waiting_connectors(distiller)
            if waiting and not any(isinstance(hook, ConnectorPretrainHook) for hook in runner.hooks):
                raise ModelError(
                    f"connector '{next(iter(waiting))}' has a pretrain_criterion, and nothing pretrains it",
                    hint="custom_hooks=[dict(type='ConnectorPretrainHook', epochs=20)]",
                )
            for connector, _ in waiting.values():
                connector.set_phase("train")
            copied.check_batch(_first_batch(runner.train_dataloader))


def _first_batch(loader: Any) -> Any:
    """One batch, read in this process: starting workers for it would cost more than the batch."""
    size = min(loader.batch_size or 1, len(loader.dataset))
    return loader.collate_fn([loader.dataset[index] for index in range(size)])


@contextlib.contextmanager
def _same_randomness(model: nn.Module) -> Iterator[None]:
    """Put all random generators back as they were."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@torch.no_grad()
def _teacher_feature(model: BaseModel, record: Record, data: Any) -> Any:
    batch = model.data_preprocessor(data, False)
    inputs = batch["inputs"] if isinstance(batch, dict) else batch[0]
    distiller: Any = model.distiller
    with distiller.teacher_recorders:
        model.teacher(inputs, None, mode="tensor")
    recorder = distiller.teacher_recorders.get_recorder(record.recorder)
    return recorder.get_record_data(record.record_idx, record.data_idx)
