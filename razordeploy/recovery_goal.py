"""What a recovery brings down: the loss of a metric or, without labels, the distance to the float model's outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import fx

from razordeploy.backends.base import Backend
from razordeploy.backends.harness import torch_runner
from razordeploy.deployment import Deployment
from razordeploy.quantization.algorithms.data import Work
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.simulate import simulate
from razordeploy.validation import any_batch

CANDIDATE = ".candidate-"
"""What the folders of engines that are tried start with."""
KINDS = ("weight", "activation")
"""What is rounded."""
_HELD_OUT = 64
"""Calibration samples, at most, that outputs are compared on and nothing is learned from."""
_SIMULATED = 16
"""How many of them simulations run on."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A number to bring down, and how far."""

    of: Literal["metric", "outputs"]
    limit: float
    loss: Callable[[Draft], float]
    """Of the engine of a draft. ``metric``: in points; ``outputs``: ``100 (1 - cosine)`` to the float model's."""
    simulated: Callable[[Draft, Sequence[str]], float] | None = None
    """The same of a simulation that rounds only values of the given kinds (``weight``, ``activation``); None: a
    simulation takes no less time than an engine."""


@contextmanager
def trial(deployment: Deployment, backend: Backend, draft: Draft) -> Iterator[Any]:
    """The engine of ``draft``, ready to run; it is gone after the block."""
    job = deployment.job
    if backend.simulated_only:  # the engine is the simulation, written to a file
        yield torch_runner(simulate(draft.captured, draft.plan, draft.params))
        return
    with tempfile.TemporaryDirectory(dir=job.work_dir, prefix=CANDIDATE) as folder:
        files = backend.export(deployment.export_job(backend, draft, Path(folder), with_twin=False))
        yield backend.load(Path(folder), files, "engine" if "engine" in files else "onnx", job.threads)


def goal_of_outputs(deployment: Deployment, backend: Backend, work: Work) -> tuple[Goal, Work]:
    """The goal of a recovery without labels, and the samples that remain to learn from.

    A quarter of the samples, at most 64, is set aside; where that is none, all do both.
    """
    unit = 1 if deployment.captured.dynamic_batch else work.batch
    held_out = min(_HELD_OUT, work.samples // 4) // unit * unit
    if not held_out:
        held_out, learned = work.samples, work
    else:
        learned = replace(work, inputs=tuple(x[:-held_out] for x in work.inputs))
    arrays = [x[-held_out:].numpy() for x in work.inputs]
    few_arrays = [x[: max(unit, min(_SIMULATED, held_out) // unit * unit)] for x in arrays]

    def outputs(module: fx.GraphModule, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        return _leaves(any_batch(deployment.captured, torch_runner(module))(*inputs))

    expected = outputs(deployment.captured.graph_module, arrays)

    def loss(draft: Draft) -> float:
        work.pause()
        with trial(deployment, backend, draft) as run:
            found = _leaves(any_batch(draft.captured, run)(*arrays))
        return 100 * (1 - min(map(cosine, expected, found)))

    @cache
    def expected_of_few() -> Sequence[np.ndarray]:
        return outputs(deployment.captured.graph_module, few_arrays)

    def simulated(draft: Draft, kinds: Sequence[str]) -> float:
        work.pause()
        plan = replace(draft.plan, points=tuple(p for p in draft.plan.points if p.kind in kinds))
        found = outputs(simulate(draft.captured, plan, draft.params), few_arrays)
        return 100 * (1 - min(map(cosine, expected_of_few(), found)))

    limit = 100 * (1 - deployment.job.deploy.min_cosine)
    return Goal(of="outputs", limit=limit, loss=loss, simulated=simulated), learned


def _leaves(outputs: Any) -> Sequence[np.ndarray]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def cosine(expected: np.ndarray, found: np.ndarray) -> float:
    """Of two arrays of one shape, in float64; 0 where one of them is not finite or all zeros."""
    a, b = (np.asarray(x, np.float64).ravel() for x in (expected, found))
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    if np.array_equal(a, b):
        return 1.0
    return float(a @ b) / size if 0 < size < np.inf else 0.0
