"""From the ``executor`` key of a recipe to an executor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from razordeploy.config.executor import ExecutorConfig
from razordeploy.executors.base import TaskExecutor


def build_executor(
    config: ExecutorConfig,
    *,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
    folder: str | Path | None = None,
) -> TaskExecutor:
    """Make the executor that ``config`` names. Nothing is started before the first task.

    Args:
        config: the parsed key.
        initializer: called once in every worker before its first task (loads what all tasks share); a worker that
            takes the place of a dead one calls it again.
        initargs: its arguments.
        folder: where Slurm jobs keep their scripts and logs; the nodes have to see it. Only Slurm needs it.

    Raises:
        MissingDependency: the executor's package is not installed.
        UsageError: more GPUs are asked for than there are.
    """
    if config.type == "inline":
        from razordeploy.executors.inline import InlineExecutor

        return InlineExecutor(initializer, initargs)
    if config.type == "ray":
        from razordeploy.executors.ray import ray_executor

        return ray_executor(config, initializer, initargs)
    if config.type == "slurm":
        from razordeploy.executors.slurm import slurm_executor

        return slurm_executor(config, initializer, initargs, Path(folder or "slurm_jobs"))
    from razordeploy.executors.local import local_executor

    return local_executor(config, initializer, initargs)
