"""How this machine's threads and GPUs are divided among tasks that run at once."""

from __future__ import annotations

import os
from pathlib import Path

from razordeploy.config.executor import ExecutorConfig
from razordeploy.environment import threads
from razordeploy.errors import UsageError

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_GPUS = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """GPUs that this process may use, by the names that ``CUDA_VISIBLE_DEVICES`` takes; without importing torch."""
    named = os.environ.get(_GPUS)
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    files = Path("/dev").glob("nvidia[0-9]*") if Path("/dev").is_dir() else ()
    return sorted((file.name.removeprefix("nvidia") for file in files), key=int)


def thread_variables(cpus: int) -> dict[str, str]:
    """Environment of a process that computes with ``cpus`` threads."""
    return dict.fromkeys(_THREADS, str(cpus))


def shares(config: ExecutorConfig) -> list[dict[str, str]]:
    """Environment variables of each of the tasks that run at once on this machine: no GPU is in two of them.

    Raises:
        UsageError: there are fewer GPUs than the tasks need.
    """
    cpus = config.cpus or max(1, threads() // config.max_parallel)
    found = visible_gpus() if config.gpus else []
    needed = config.max_parallel * config.gpus
    if len(found) < needed:
        raise UsageError(
            f"executor: {config.max_parallel} tasks of {config.gpus} GPUs need {needed}, found {len(found)}",
            hint="lower max_parallel or gpus",
        )
    result = []
    for index in range(config.max_parallel):
        share = thread_variables(cpus)
        if config.gpus:
            share[_GPUS] = ",".join(found[index * config.gpus : (index + 1) * config.gpus])
        result.append(share)
    return result
