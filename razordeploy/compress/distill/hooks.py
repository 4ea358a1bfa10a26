"""mmengine hooks of a distillation."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

from razordeploy.compress.algorithm.base import unwrap
from razordeploy.compress.algorithm.build import build
from razordeploy.compress.distill.connectors.factor_transfer import Paraphraser
from razordeploy.compress.distill.distillers.configurable import ConfigurableDistiller, Record
from razordeploy.compress.distill.feature_maps import MapStyle, draw_features, record_features
from razordeploy.compress.distill.losses.table import LOSSES
from razordeploy.errors import ModelError, RecipeError, nearest

# As mmrazor's hook draws.
_DRAWN = {"channel_reduction": "pixel_wise_max", "topk": 20, "arrangement": (4, 5), "resize_shape": None, "alpha": 0.5}


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


class RazorVisualizationHook(Hook):
    """Draws what recorders keep of a few validation images, after every ``interval`` epochs.

    A sheet is written for each image, ``data_idx<i>_epoch<n>.png``, and given to the run's visualizer.

    Args:
        recorders: name -> recorder, as in a distiller; paths start at the model that is trained, or at the
            ``architecture`` of an algorithm.
        mappings: name of the picture -> ``dict(recorder=..., record_idx=0, data_idx=None)``.
        enabled: False: draw nothing.
        data_idx: numbers of images in the validation data.
        interval: epochs between two drawings.
        show: taken for mmrazor's sake; nothing is shown, the files are what there is.
        wait_time: as ``show``.
        out_dir: default: ``vis_data`` in the work dir.
        file_client_args: taken for mmrazor's sake.
        is_overlaid: draw over the image.
        visualization_cfg: ``channel_reduction``, ``topk``, ``arrangement``, ``resize_shape``, ``alpha`` of
            ``MapStyle``.
        use_norm: subtract each channel's mean and divide by its deviation first.
        style: the keys of ``visualization_cfg``, one by one.

    Raises:
        RecipeError: no recorders or mappings, or an unknown key.
    """

    priority = "LOW"

    def __init__(
        self,
        recorders: Mapping[str, Any],
        mappings: Mapping[str, Mapping[str, Any]],
        enabled: bool = True,
        data_idx: int | Sequence[int] = 0,
        interval: int = 1,
        show: bool = False,
        wait_time: float = 0.1,
        out_dir: str | None = None,
        file_client_args: Any = None,
        is_overlaid: bool = True,
        visualization_cfg: Mapping[str, Any] | None = None,
        use_norm: bool = False,
        **style: Any,
    ) -> None:
        chosen = {**_DRAWN, **(visualization_cfg or {}), **style}
        known = [field.name for field in fields(MapStyle) if field.name not in ("use_norm", "overlaid")]
        for key in chosen:
            if key not in known:
                raise RecipeError(f"RazorVisualizationHook has no keyword '{key}'", hint=nearest(key, known))
        if not recorders or not mappings or interval < 1:
            raise RecipeError("RazorVisualizationHook: expected recorders, mappings and an interval of 1 or more")
        for key in ("arrangement", "resize_shape"):
            chosen[key] = tuple(chosen[key]) if chosen.get(key) is not None else None
        self.style = MapStyle(use_norm=use_norm, overlaid=is_overlaid, **chosen)
        self.recorders, self.mappings, self.enabled = dict(recorders), dict(mappings), enabled
        self.data_idx = [data_idx] if isinstance(data_idx, int) else list(data_idx)
        self.interval, self.out_dir, self.show = interval, out_dir, show

    def before_train(self, runner: Any) -> None:
        """Say what is not done, and refuse what cannot be recorded.

        Raises:
            RecipeError, ModelError: what is recorded is not there, or is no map.
        """
        if self.show:
            runner.logger.warning("RazorVisualizationHook: show=True is ignored; pictures are written to files")
        if self.enabled:
            self._features(runner, self.data_idx[0])

    def after_train_epoch(self, runner: Any) -> None:
        """Draw."""
        if not self.enabled or runner.epoch % self.interval or not is_main_process():
            return
        folder = Path(self.out_dir or Path(runner.work_dir) / "vis_data")
        for index in self.data_idx:
            image, features = self._features(runner, index)
            name = f"data_idx{index}_epoch{runner.epoch}"
            file = draw_features(image, {"model": features}, self.style, folder / f"{name}.png")
            _to_visualizer(runner, name, file)

    def _features(self, runner: Any, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """An image (C, H, W) as the model is given it, and its maps; the model stays in its modes."""
        model: Any = unwrap(runner.model)
        modes = [(module, module.training) for module in model.modules()]
        inputs, samples = _validation_image(runner, model, index)
        part = self._part(model)
        try:
            found = record_features(
                part, inputs, self.recorders, self.mappings, lambda images: part(images, samples, mode="tensor")
            )
        finally:
            for module, mode in modes:
                module.training = mode
        return inputs[0].cpu(), {name: feature.cpu() for name, feature in found.items()}

    def _part(self, model: nn.Module) -> nn.Module:
        """The model, or the architecture in it where the recorders' paths start there."""
        names = {str(recorder.get("source", "")) for recorder in self.recorders.values()}
        inner = getattr(model, "architecture", None)
        own = dict(model.named_modules())
        if isinstance(inner, nn.Module) and any(n not in own for n in names):
            return inner
        return model


def _validation_image(runner: Any, model: Any, index: int) -> tuple[Any, Any]:
    """One image of the validation data as the model's preprocessor gives it (1, C, H, W), and its samples."""
    loader = runner.val_loop.dataloader if runner.val_loop is not None else runner.train_dataloader
    if index >= len(loader.dataset):
        raise RecipeError(f"RazorVisualizationHook: expected data_idx below {len(loader.dataset)}, got {index}")
    data = model.data_preprocessor(loader.collate_fn([loader.dataset[index]]), False)
    return data["inputs"], data.get("data_samples", data.get("targets"))


def _to_visualizer(runner: Any, name: str, file: Path) -> None:
    from matplotlib.image import imread

    picture = np.asarray(imread(file))[..., :3]
    runner.visualizer.add_image(name, (picture * 255).round().astype(np.uint8), step=runner.iter)


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
    # A loader whose batches are put together by a sampler of its own, by shape for instance, has no size itself.
    size = min(loader.batch_size or getattr(loader.batch_sampler, "batch_size", 1), len(loader.dataset))
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
