"""Train a captured graph on its grids: weights and scales out, in the form that the export takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import nn

from razordeploy.capture.graph import CapturedModel
from razordeploy.config.qat import QATConfig
from razordeploy.errors import RecipeError
from razordeploy.quantization.calibrate import Interrupted
from razordeploy.quantization.plan import QParams, QuantPlan
from razordeploy.quantization.qat import phases
from razordeploy.quantization.qat.check import check_gradients
from razordeploy.quantization.qat.graph import QUANT, MakeFakeQuant, QATGraph
from razordeploy.quantization.qat.loops import LOOPS, QATEpochBasedLoop
from razordeploy.quantization.qat.model import Losses, QATModel, Teach
from razordeploy.train.classifier import ShiftAndFlip
from razordeploy.train.config_runner import train_config
from razordeploy.train.runner import train_source

CHECKPOINT = "qat.pth"
_NORMALISES = ("adam", "adamw", "nadam", "radam", "adamax", "rmsprop", "adagrad", "lion", "lamb")
"""Optimizers whose step does not grow with the gradient."""


@dataclass(kw_only=True)
class Training:
    """What is trained on, and how."""

    config: QATConfig
    source: Any = None
    """A training split, as ``train_source`` takes it; None: ``runner_config`` has the data."""
    runner_config: Mapping[str, Any] | None = None
    """An OpenMMLab config with ``train_dataloader``, ``train_cfg`` and ``optim_wrapper``."""
    scope: str = "mmcls"
    preprocess: nn.Module | None = None
    """The model's data preprocessor, which goes with ``runner_config``."""
    losses: Losses | None = None
    predictions: Callable[[Any, Any], Any] | None = None
    teach: Teach | None = None
    """Distillation loss; the float graph teaches."""
    seed: int = 0
    amp: bool = False
    launcher: str = "none"
    resume: bool = False
    advance: Callable[[int, int | None], None] = lambda done, total: None
    """Told the steps done and their number."""
    stop: Callable[[], bool] = lambda: False
    hooks: list[Hook] = field(default_factory=list)


def build_network(
    captured: CapturedModel,
    plan: QuantPlan,
    params: Mapping[str, QParams],
    make: MakeFakeQuant,
    config: QATConfig,
) -> tuple[QATGraph, list[str]]:
    """The network to train, and lines for the user about what cannot be trained.

    Raises:
        ModelError: nothing in it can be trained.
    """
    network = QATGraph(captured, plan, params, make)
    phases.train_phase(network, observe=False)
    phases.freeze_norms(network, config.freeze_bn_begin == 1)
    return network, check_gradients(network, captured.example_inputs)


def train_network(network: QATGraph, captured: CapturedModel, training: Training, work_dir: Path) -> Path:
    """Train in ``work_dir`` and write the network's state as ``qat.pth`` there.

    Raises:
        RecipeError: a section that training needs is missing or wrong.
        CheckpointError: ``training.resume`` and the last checkpoint cannot be read.
        ModelError: the loss is not finite.
        Interrupted: ``training.stop`` asked for it; the last full epoch is kept.
    """
    teacher = captured.graph_module if training.teach is not None else None
    hooks = [_Watch(training), *training.hooks]
    common: dict[str, Any] = {
        "work_dir": work_dir,
        "checkpoint": CHECKPOINT,
        "seed": training.seed,
        "resume": training.resume,
        "amp": training.amp,
        "launcher": training.launcher,
        "hooks": hooks,
    }
    config = training.config
    wrapped = QATModel(
        network,
        training.preprocess or ShiftAndFlip(config.shift, config.flip),
        losses=training.losses,
        predictions=training.predictions,
        teacher=teacher,
        teach=training.teach,
        label_smoothing=config.label_smoothing,
    )
    if training.source is None:
        path = train_config(wrapped, network, _runner_config(training), scope=training.scope, names=LOOPS, **common)
    else:
        path = train_source(
            wrapped,
            network,
            training.source,
            epochs=config.epochs,
            batch_size=config.batch_size,
            lr=config.lr,
            optimizer=config.optimizer,
            num_workers=config.num_workers,
            threads=config.threads,
            train_cfg=_loop(config),
            paramwise=paramwise(config.optimizer, config.scale_lr_mult),
            max_norm=config.max_norm,
            **common,
        )
    phases.validation_phase(network)
    return path


def load_network(network: QATGraph, path: Path) -> None:
    """Take over the state of a finished training."""
    network.load_state_dict(torch.load(path, weights_only=True))
    phases.validation_phase(network)


def paramwise(optimizer: str | Mapping[str, Any], scale_lr_mult: float | None) -> dict[str, Any]:
    """mmengine's ``paramwise_cfg``: learned scales do not decay, and move by steps of their own size."""
    kind = str(optimizer if isinstance(optimizer, str) else optimizer.get("type")).rpartition(".")[2].lower()
    mult = (0.01 if kind in _NORMALISES else 1.0) if scale_lr_mult is None else scale_lr_mult
    return {"custom_keys": {QUANT: {"lr_mult": mult, "decay_mult": 0.0}}}


def _loop(config: QATConfig) -> dict[str, Any]:
    return {
        "type": QATEpochBasedLoop,
        "disable_observer_begin": config.disable_observer_begin,
        "freeze_bn_begin": config.freeze_bn_begin,
    }


def _runner_config(training: Training) -> dict[str, Any]:
    """The config with a loop of ours; what ``qat`` says of the length and the optimizer goes before it."""
    config = dict(training.runner_config or {})
    for key in ("train_dataloader", "optim_wrapper"):
        if not config.get(key):
            raise RecipeError(f"expected '{key}' in the recipe to train by it, found none")
    loop = dict(config.get("train_cfg") or {})
    kind = str(loop.get("type", "")).rpartition(".")[2]
    if loop.get("by_epoch") is False or "max_iters" in loop:
        raise RecipeError(
            "quantization-aware training counts epochs, the recipe's train_cfg counts iterations",
            hint="train_cfg=dict(by_epoch=True, max_epochs=10)",
        )
    if kind not in LOOPS:
        loop = {**loop, **_loop(training.config)}
        loop.pop("by_epoch", None)
    loop.setdefault("max_epochs", training.config.epochs)
    wrapper = dict(config["optim_wrapper"])
    chosen = wrapper.get("optimizer") or {}
    own = dict(wrapper.get("paramwise_cfg") or {})
    own["custom_keys"] = {
        **paramwise(chosen, training.config.scale_lr_mult)["custom_keys"],
        **(own.get("custom_keys") or {}),
    }
    wrapper["paramwise_cfg"] = own
    if wrapper.get("clip_grad") is None and training.config.max_norm is not None:
        wrapper["clip_grad"] = {"max_norm": training.config.max_norm}
    # The network's weights are the caller's.
    return {**config, "train_cfg": loop, "optim_wrapper": wrapper, "load_from": None}


class _Watch(Hook):
    """Tells the progress and ends the run where it is asked to."""

    priority = "VERY_LOW"

    def __init__(self, training: Training) -> None:
        self.training = training

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Count a step.

        Raises:
            Interrupted: the run is to end; the last full epoch is kept.
        """
        self.training.advance(runner.iter + 1, runner.max_iters)
        if self.training.stop():
            kept = f"epoch {runner.epoch} of {runner.max_epochs} is kept" if runner.epoch else "no epoch is kept yet"
            raise Interrupted(kept)
