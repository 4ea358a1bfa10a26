"""Training by an OpenMMLab config: its dataloaders, optimizers, schedules, loops and hooks."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

from razordeploy.data.mm import registry_scope
from razordeploy.errors import RecipeError
from razordeploy.train.hooks import PlainCheckpoint, Progress
from razordeploy.train.processes import join
from razordeploy.train.runner import (
    POINTER,
    QuietRunner,
    close,
    last_checkpoint,
    optim_wrapper_section,
    process_group,
    run_name,
    save_state_dict,
    wrapper_options,
)

# What mmengine's Runner takes of a config as it is.
_SECTIONS = (
    *("train_dataloader", "val_dataloader", "train_cfg", "val_cfg", "val_evaluator", "optim_wrapper"),
    *("param_scheduler", "auto_scale_lr", "default_hooks", "env_cfg", "log_processor", "log_level", "visualizer"),
)
_SCREEN_INTERVAL = 100


def train_config(
    wrapped: BaseModel,
    model: nn.Module,
    config: Mapping[str, Any],
    *,
    work_dir: str | Path,
    checkpoint: str,
    scope: str = "mmcls",
    names: Mapping[str, type] | None = None,
    hooks: Sequence[Hook] = (),
    seed: int = 0,
    resume: bool = False,
    amp: bool = False,
    launcher: str = "none",
    model_wrapper: Mapping[str, Any] | None = None,
) -> Path:
    """Train ``wrapped`` as ``config`` says and write the weights of ``model``, which is inside it.

    Args:
        wrapped: an mmengine model.
        model: whose ``state_dict`` is written.
        config: with ``train_dataloader``, ``train_cfg`` and ``optim_wrapper`` at least.
        work_dir: made if missing.
        checkpoint: name of the file in it.
        scope: the package whose registry the config means.
        names: loops, hooks and constructors of razordeploy that the config may name, with or without ``mmrazor.``.
        hooks: more hooks of the run.
        seed: used where the config has no ``randomness.seed``.
        resume: continue from the last checkpoint in ``work_dir``, if there is one.
        amp: mixed precision.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        model_wrapper: as of ``train_source``.

    Raises:
        RecipeError: a section is missing.
        CheckpointError: ``resume`` and the last checkpoint cannot be read or is another model's.
        ModelError: the loss is not finite.
    """
    work_dir = Path(work_dir)
    for key in ("train_dataloader", "train_cfg", "optim_wrapper"):
        # Not by its truth: a dataloader of less than one batch has none.
        if config.get(key) in (None, {}):
            raise RecipeError(f"expected '{key}' in the recipe to train by it, found none")
    work_dir.mkdir(parents=True, exist_ok=True)
    join(launcher)
    last = last_checkpoint(wrapped, work_dir) if resume else None
    if not resume:
        (work_dir / POINTER).unlink(missing_ok=True)
    sections = {key: named(config[key], names or {}) for key in _SECTIONS if config.get(key) is not None}
    by_epoch = sections["train_cfg"].get("by_epoch", True)
    sections["optim_wrapper"] = optim_wrapper_section(sections["optim_wrapper"], amp)
    own = [PlainCheckpoint(), Progress(None if by_epoch else _SCREEN_INTERVAL), *hooks]
    sections["env_cfg"] = {**process_group(), **sections.get("env_cfg", {})}
    randomness = {key: value for key, value in (config.get("randomness") or {}).items() if value is not None}
    with registry_scope(scope), contextlib.redirect_stdout(sys.stderr):
        runner = QuietRunner(
            model=wrapped,
            work_dir=str(work_dir),
            custom_hooks=[*(named(config.get("custom_hooks") or [], names or {})), *own],
            randomness={"seed": seed, **randomness},
            experiment_name=run_name(Path(checkpoint).stem),
            default_scope=scope,
            launcher=launcher,
            load_from=config.get("load_from") if last is None else str(last),
            resume=last is not None,
            cfg=wrapper_options(model_wrapper, config),
            **sections,
        )
        try:
            runner.train()
            if is_main_process():
                save_state_dict(model, work_dir / checkpoint)
        finally:
            close(runner)
    return work_dir / checkpoint


def named(value: Any, names: Mapping[str, type]) -> Any:
    """A copy of ``value`` with classes in the place of the names in ``names``."""
    if isinstance(value, Mapping):
        found = {key: named(item, names) for key, item in value.items()}
        for key in ("type", "constructor"):
            bare = str(found.get(key)).removeprefix("mmrazor.").removeprefix("razordeploy.")
            if bare in names:
                found[key] = names[bare]
        return found
    if isinstance(value, list | tuple):
        # Transforms tell a pair of sizes from a list of them.
        items = [named(item, names) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    # Built dataloaders are not copied.
    return value if hasattr(value, "dataset") else copy.deepcopy(value)
