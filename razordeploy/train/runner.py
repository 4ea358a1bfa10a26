"""Float training with mmengine's Runner."""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import os
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.registry import MODEL_WRAPPERS, DefaultScope
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from razordeploy.data.base import Source
from razordeploy.errors import CheckpointError, RecipeError, nearest
from razordeploy.train.amp import amp_section
from razordeploy.train.classifier import Classifier, ShiftAndFlip
from razordeploy.train.hooks import EpochSeed, PlainCheckpoint, Progress
from razordeploy.train.processes import join

CHECKPOINT = "float.pth"
# mmengine's file that names the last complete checkpoint.
POINTER = "last_checkpoint"
# Short names for the recipe; a dict goes to mmengine's registry as it is.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"type": "AdamW", "weight_decay": 0.01},
    "sgd": {"type": "SGD", "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
}
_RUNS = itertools.count()


def train_float(
    model: nn.Module,
    source: Source,
    *,
    work_dir: str | Path,
    epochs: int,
    batch_size: int = 64,
    lr: float = 1e-3,
    optimizer: str | Mapping[str, Any] = "adamw",
    shift: int = 0,
    flip: bool = False,
    label_smoothing: float = 0.0,
    num_workers: int = 0,
    threads: int | None = None,
    seed: int = 0,
    resume: bool = False,
    amp: bool = False,
    launcher: str = "none",
) -> Path:
    """Train a classification module and write its weights; the recipe's ``train`` section is these keywords.

    ``model`` is trained in place, with cosine decay to zero. ``float.pth`` is its plain ``state_dict``, written
    atomically; mmengine's ``epoch_N.pth`` (last two) and logs lie beside it, and nothing outside ``work_dir``.
    A run that was interrupted continues with ``resume`` from its last full epoch and ends with the same weights.

    Args:
        model: images (N, C, H, W) -> logits (N, classes).
        source: the training split.
        work_dir: made if missing.
        epochs: passes over ``source``.
        batch_size: samples per step and process.
        lr: initial learning rate.
        optimizer: ``adamw``, ``sgd``, or an mmengine optimizer dict such as ``dict(type='SGD', momentum=0.9)``.
        shift: training images are moved by up to this many pixels in each direction.
        flip: training images are mirrored half of the time.
        label_smoothing: 0 to 1.
        num_workers: loading processes; 0: in this one.
        threads: CPU threads while training; None: torch's own. Models of microseconds per layer want 1: waiting for
            each other costs more than it saves on busy cores, and the last digits no longer depend on the machine.
        seed: of weights drawn in training, order and augmentation; the model's own initial weights are the caller's.
        resume: continue from the last checkpoint in ``work_dir``, if there is one.
        amp: mixed precision: float16 with scaled losses on a GPU, bfloat16 on a CPU.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        RecipeError: an unknown optimizer or a value out of range.
        CheckpointError: ``resume`` and the last checkpoint cannot be read or is another model's.
        ModelError: the loss is not finite, or the outputs are not logits.
    """
    return train_source(
        Classifier(model, ShiftAndFlip(shift, flip), label_smoothing),
        model,
        source,
        work_dir=work_dir,
        checkpoint=CHECKPOINT,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        num_workers=num_workers,
        threads=threads,
        seed=seed,
        resume=resume,
        amp=amp,
        launcher=launcher,
    )


def train_source(
    wrapped: BaseModel,
    model: nn.Module,
    source: Source | DataLoader[Any],
    *,
    work_dir: str | Path,
    checkpoint: str,
    epochs: int,
    batch_size: int = 64,
    lr: float = 1e-3,
    optimizer: str | Mapping[str, Any] = "adamw",
    num_workers: int = 0,
    threads: int | None = None,
    seed: int = 0,
    resume: bool = False,
    amp: bool = False,
    launcher: str = "none",
    hooks: Sequence[Hook | dict[str, Any]] = (),
    optim_wrapper: Mapping[str, Any] | None = None,
    model_wrapper: Mapping[str, Any] | None = None,
    train_cfg: Mapping[str, Any] | None = None,
    paramwise: Mapping[str, Any] | None = None,
    max_norm: float | None = None,
) -> Path:
    """Train ``wrapped`` on ``source`` as ``train_float`` does, and write the weights of ``model``, which is inside it.

    Args:
        wrapped: takes batches (inputs, targets); everything in it that requires a gradient is trained.
        model: whose ``state_dict`` is written.
        source: the training split, or a loader of batches (inputs, targets) with an order of its own.
        work_dir: made if missing.
        checkpoint: name of the file in it.
        epochs: as for ``train_float``, like all that follow.
        batch_size: see there.
        lr: see there.
        optimizer: see there.
        num_workers: see there.
        threads: see there.
        seed: see there.
        resume: see there.
        amp: see there.
        launcher: see there.
        hooks: more hooks of the run.
        optim_wrapper: mmengine's section, with several optimizers for instance; takes the place of ``optimizer``.
        model_wrapper: mmengine's ``model_wrapper_cfg``: what holds ``wrapped`` on several processes; None: its own.
        train_cfg: the loop, by ``type``, and its arguments; None: mmengine's by epochs.
        paramwise: mmengine's ``paramwise_cfg``.
        max_norm: of the gradient of a step, which is scaled down to it; None: no limit.
    """
    _check_numbers(epochs=epochs, batch_size=batch_size, lr=lr)
    join(launcher)
    if threads is not None and threads < 1:
        raise RecipeError(f"train: expected threads of at least 1 or None, got {threads}")
    work_dir = Path(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    loader = source if isinstance(source, DataLoader) else _loader(source, batch_size, num_workers, seed)
    last = last_checkpoint(wrapped, work_dir) if resume else None
    if not resume:
        # Else an interruption before the first save would leave it pointing at the previous run.
        (work_dir / POINTER).unlink(missing_ok=True)
    runner = QuietRunner(
        model=wrapped,
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg={**(train_cfg or {"by_epoch": True}), "max_epochs": epochs},
        optim_wrapper=optim_wrapper_section(optim_wrapper or _optimization(optimizer, lr, paramwise, max_norm), amp),
        param_scheduler={"type": "CosineAnnealingLR", "T_max": epochs, "convert_to_iter_based": True},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 2}},
        custom_hooks=[EpochSeed(seed), PlainCheckpoint(), Progress(), *hooks],
        randomness={"seed": seed},
        experiment_name=run_name(Path(checkpoint).stem),
        launcher=launcher,
        env_cfg=process_group(),
        load_from=None if last is None else str(last),
        resume=last is not None,
        cfg=wrapper_options(model_wrapper),
    )
    try:
        # mmengine prints what it resumes from; stdout belongs to the caller.
        with contextlib.redirect_stdout(sys.stderr), _threads(threads):
            runner.train()
        if is_main_process():
            save_state_dict(model, work_dir / checkpoint)
    finally:
        close(runner)
    return work_dir / checkpoint


def _loader(source: Source, batch_size: int, num_workers: int, seed: int) -> DataLoader[Any]:
    return DataLoader(
        source,
        batch_size=batch_size,
        sampler=DefaultSampler(source, shuffle=True, seed=seed),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        # A last batch of one sample would break batch norm.
        drop_last=len(source) > batch_size and len(source) % batch_size == 1,
    )


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_first_process() -> bool:
    """Tell whether this is the process that writes and prints, of those that train together."""
    return bool(is_main_process())


def run_name(stem: str) -> str:
    """A name that no other run of this process has.

    mmengine names a run after the second it starts in; two in one second would share their log file.
    """
    return f"{stem}{next(_RUNS)}"


def save_state_dict(model: nn.Module, path: Path) -> None:
    """Write ``model.state_dict()`` on the CPU to ``path``: whole, or not at all."""
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(state, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def process_group() -> dict[str, Any]:
    """mmengine's ``env_cfg``: how processes of one run talk to each other."""
    return {"dist_cfg": {"backend": "nccl" if torch.cuda.is_available() else "gloo"}}


def wrapper_options(model_wrapper: Mapping[str, Any] | None, config: Mapping[str, Any] | None = None) -> Config:
    """What mmengine reads of the whole config when it wraps a model for several processes."""
    keys = ("model_wrapper_cfg", "find_unused_parameters", "sync_bn")
    found = {key: copy.deepcopy(config[key]) for key in keys if config and key in config}
    return Config({**found, **({"model_wrapper_cfg": dict(model_wrapper)} if model_wrapper is not None else {})})


def optim_wrapper_section(section: Mapping[str, Any], amp: bool) -> dict[str, Any]:
    """mmengine's ``optim_wrapper``, of one optimizer or of several by name, with or without mixed precision."""
    if "optimizer" in section:
        return {"type": "OptimWrapper", **section, **(amp_section() if amp else {})}
    return {k: optim_wrapper_section(v, amp) if isinstance(v, Mapping) else v for k, v in section.items()}


class QuietRunner(Runner):
    """Everything goes to the log file; the screen (stderr) gets errors and the progress lines.

    mmengine's own warnings are about its deprecated parts; nothing a reader of the screen could act on.
    """

    def wrap_model(self, model_wrapper_cfg: Any, model: Any) -> Any:
        """As mmengine, which gives models on the CPU a device number too, and DistributedDataParallel refuses that."""
        if not self.distributed or torch.cuda.is_available() or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        unused = self.cfg.get("find_unused_parameters", False)
        options = dict(model_wrapper_cfg or {"broadcast_buffers": False, "find_unused_parameters": unused})
        kind = MODEL_WRAPPERS.get(options.pop("type", "MMDistributedDataParallel"))
        return kind(module=model, **options)

    def build_logger(self, *args: Any, **kwargs: Any) -> Any:
        """Let the screen have errors and what is marked for it."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.setStream(sys.stderr)
                handler.addFilter(lambda record: record.levelno >= logging.ERROR or hasattr(record, "screen"))
        return logger


def last_checkpoint(wrapped: nn.Module, work_dir: Path) -> Path | None:
    """The checkpoint in ``work_dir`` that a run of ``wrapped`` goes on from; None: there is none.

    Raises:
        CheckpointError: it is missing, cannot be read, or is another model's.
    """
    pointer = work_dir / POINTER
    if not pointer.is_file():
        return None
    # Only the name counts: the work dir may have been moved since.
    path = work_dir / Path(pointer.read_text().strip()).name
    hint = f"train again without resume, or delete {pointer}"
    if not path.is_file():
        raise CheckpointError(f"expected the checkpoint {path} to resume from, found nothing", hint=hint)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except (OSError, EOFError, RuntimeError, KeyError, pickle.UnpicklingError) as exc:
        raise CheckpointError(f"cannot read the checkpoint {path}: {exc}", hint=hint) from exc
    # mmengine would load what fits and only log the rest.
    own = wrapped.state_dict()
    if {k: v.shape for k, v in saved.items()} != {k: v.shape for k, v in own.items()}:
        wrong = [k for k in {**own, **saved} if k not in own or k not in saved or own[k].shape != saved[k].shape]
        raise CheckpointError(f"{path} is of another model: {len(wrong)} keys differ, first {wrong[0]}", hint=hint)
    return path


def _optimization(
    optimizer: str | Mapping[str, Any], lr: float, paramwise: Mapping[str, Any] | None, max_norm: float | None
) -> dict[str, Any]:
    return {
        "optimizer": optimizer_section(optimizer, lr),
        **({} if paramwise is None else {"paramwise_cfg": dict(paramwise)}),
        **({} if max_norm is None else {"clip_grad": {"max_norm": max_norm}}),
    }


def optimizer_section(optimizer: str | Mapping[str, Any], lr: float) -> dict[str, Any]:
    """mmengine's ``optimizer`` section of a short name, or of a dict that may lack the learning rate.

    Raises:
        RecipeError: neither mmengine nor torch has it.
    """
    if isinstance(optimizer, str):
        if optimizer.lower() not in OPTIMIZERS:
            raise RecipeError(f"train: unknown optimizer {optimizer!r}", hint=nearest(optimizer, OPTIMIZERS))
        return {**OPTIMIZERS[optimizer.lower()], "lr": lr}
    if MMENGINE_OPTIMIZERS.get(str(optimizer.get("type"))) is None:
        raise RecipeError(
            f"train: expected an optimizer dict with a type that mmengine or torch has, got {dict(optimizer)}",
            hint="for example optimizer=dict(type='SGD', momentum=0.9)",
        )
    return {"lr": lr, **optimizer}


def _check_numbers(*, epochs: int, batch_size: int, lr: float) -> None:
    if epochs < 1 or batch_size < 1 or not lr > 0:
        raise RecipeError(
            f"train: expected epochs and batch_size of at least 1 and lr above 0, got {epochs}, {batch_size} and {lr}"
        )


def close(runner: Runner) -> None:
    """Close the run's log files, and forget its scope: the next model to be built is of another."""
    DefaultScope._instance_dict.pop(runner._experiment_name, None)
    # mmengine keeps its log files open until the process ends, and writes into them what the next model is made of.
    for handler in list(runner.logger.handlers):
        if isinstance(handler, logging.FileHandler):
            runner.logger.removeHandler(handler)
            handler.close()
    runner.visualizer.close()
