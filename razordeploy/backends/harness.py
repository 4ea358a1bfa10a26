"""Hold an engine against its simulation and its float twin."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from razordeploy.backends.base import Coverage, FloatOp, Latency, RuntimeOp
from razordeploy.capture.fast import fast_copy, fast_input
from razordeploy.quantization.plan import PlannedOp

_TOKEN = re.compile(r"(_token_\d+|_nhwc|_nchwc|/WithoutBiases|/Dequantization\w*|/fq_weights.*)+$")
"""What engines append to a node's name when they replace it."""


def coverage(ops: Sequence[PlannedOp], runtime: Sequence[RuntimeOp]) -> Coverage:
    """Count planned operations that the engine's own graph runs in 8-bit integers.

    Args:
        ops: the plan, by graph node name.
        runtime: the engine's operations; ``origins`` are the names they were exported under.
    """
    ran = kernels_by_origin(runtime)
    planned = int8 = 0
    floats = []
    for op in ops:
        planned += op.int8
        reason = float_reason(op, ran.get(op.node, []))
        if reason is None:
            int8 += 1
        else:
            floats.append(FloatOp(node=op.module or op.node, op=op.kind, reason=reason))
    return Coverage(planned=planned, int8=int8, float_ops=tuple(floats))


def kernels_by_origin(runtime: Sequence[RuntimeOp]) -> dict[str, list[RuntimeOp]]:
    """Exported name -> the engine's operations that it became part of."""
    ran: dict[str, list[RuntimeOp]] = {}
    for kernel in runtime:
        for origin in origins_of(kernel):
            ran.setdefault(origin, []).append(kernel)
    return ran


def origins_of(kernel: RuntimeOp) -> list[str]:
    """Exported names that ``kernel`` goes back to, its own first."""
    return list(dict.fromkeys(_TOKEN.sub("", o) for o in (kernel.name, *kernel.origins)))


def float_reason(op: PlannedOp, kernels: Sequence[RuntimeOp]) -> str | None:
    """Why ``op``, which ``kernels`` run, is not computed in int8; None where one of them does."""
    if not op.int8:
        return op.reason or "not planned"
    if any(k.int8 for k in kernels):
        return None
    if not kernels:
        return "the engine's graph does not name it: it was folded away or merged"
    return f"planned as int8, but the engine runs {kernel_text(kernels)}"


def kernel_text(kernels: Sequence[RuntimeOp]) -> str:
    """Say what runs and in which type: ``Convolution in u8``."""
    return ", ".join(sorted({f"{k.type} in {k.precision}" for k in kernels}))


@dataclass
class Parity:
    """Streaming comparison of two models' outputs: largest and squared difference, signal power, output range."""

    step: float | None = None
    """Quantization step of the output; None takes 1/255 of the range seen."""
    max_abs: float = 0.0
    noise: float = 0.0
    signal: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def update(self, reference: Any, tested: Any) -> None:
        """Take one batch of outputs, ``(N, ...)`` each, or tuples of them."""
        for a, b in zip(_tuple(reference), _tuple(tested), strict=True):
            x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
            if not x.size:
                continue
            difference = x - y
            self.max_abs = max(self.max_abs, float(np.abs(difference).max()))
            self.noise += float((difference**2).sum())
            self.signal += float((x**2).sum())
            self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))

    def result(self) -> dict[str, float | None]:
        """``max_abs``, ``sqnr_db`` (None: identical) and ``steps`` of the output's 8-bit grid."""
        step = self.step or max(self.high - self.low, 0.0) / 255
        sqnr = 10 * np.log10(self.signal / self.noise) if self.noise > 0 and self.signal > 0 else None
        steps = self.max_abs / step if step else (0.0 if self.max_abs == 0 else None)
        return {"max_abs": self.max_abs, "sqnr_db": None if sqnr is None else float(sqnr), "steps": steps}


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def interleaved_latency(
    runners: Mapping[str, Callable[..., Any]],
    inputs: Sequence[np.ndarray],
    *,
    seconds: float = 3.0,
    min_calls: int = 20,
) -> dict[str, Latency]:
    """Time several models in turns on the same inputs, so that a slow moment of the machine hits all of them.

    The order is drawn anew in every round: a model that always ran behind a large one would find its caches emptied.

    Args:
        runners: name -> model.
        inputs: one batch, ``(N, ...)`` arrays in input order.
        seconds: time to spend on all models together, after a warm-up.
        min_calls: timed calls of each model, at least.
    """
    for runner in runners.values():
        for _ in range(3):
            runner(*inputs)
    samples: dict[str, list[float]] = {name: [] for name in runners}
    shuffle = random.Random(0).shuffle
    order = list(runners.items())
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(samples.values()))) < min_calls:
        shuffle(order)
        for name, runner in order:
            samples[name].append(_timed_ms(runner, inputs))
    batch = inputs[0].shape[0]
    return {name: _latency(values, batch) for name, values in samples.items()}


def _timed_ms(runner: Callable[..., Any], inputs: Sequence[np.ndarray]) -> float:
    """Milliseconds of one call, by the device's own clock where the runner has one."""
    own: Callable[..., float] | None = getattr(runner, "timed_ms", None)
    if own is not None:
        return own(*inputs)
    start = time.perf_counter_ns()
    runner(*inputs)
    return (time.perf_counter_ns() - start) / 1e6


def _latency(samples_ms: list[float], batch: int) -> Latency:
    p50, p90, p99 = (float(p) for p in np.percentile(samples_ms, (50, 90, 99)))
    return Latency(p50_ms=p50, p90_ms=p90, p99_ms=p99, throughput=1000 * batch / p50, samples_ms=tuple(samples_ms))


def size_bytes(folder: Path, files: Mapping[str, str], role: str) -> int:
    """Bytes on disk of a model with its weight files; the role's files start with its name."""
    return sum((folder / name).stat().st_size for key, name in files.items() if key.split("_")[0] == role)


def torch_runner(module: torch.fx.GraphModule) -> Any:
    """Run a captured or simulated graph on arrays, in its fastest form."""
    module = fast_copy(module)

    def run(*inputs: np.ndarray) -> Any:
        tensors = [fast_input(torch.from_numpy(np.ascontiguousarray(x))) for x in inputs]
        with torch.inference_mode():
            leaves = torch.utils._pytree.tree_leaves(module(*tensors))
        values = tuple(leaf.numpy() for leaf in leaves if isinstance(leaf, torch.Tensor))
        return values[0] if len(values) == 1 else values

    return run


def in_batches_of(size: int | None, run: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``run``, which takes batches of exactly ``size``, take any; None: it takes any already.

    The last part is filled up with its own last sample, whose outputs are dropped.
    """
    if size is None:
        return run

    def any_size(*inputs: np.ndarray) -> Any:
        count = len(inputs[0])
        parts = []
        for start in range(0, count, size):
            rows = np.minimum(np.arange(start, start + size), count - 1)
            parts.append(_tuple(run(*(x[rows] for x in inputs))))
        outputs = tuple(np.concatenate(column)[:count] for column in zip(*parts, strict=True))
        return outputs[0] if len(outputs) == 1 else outputs

    return any_size
