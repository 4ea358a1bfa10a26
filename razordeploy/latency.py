"""Latency of a model as an engine: what ``ResourceEstimator`` and searches take as a cost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from razordeploy.backends.loaded import load_engine
from razordeploy.backends.registry import check_names
from razordeploy.capture.export import capture
from razordeploy.config.sections import DeployConfig
from razordeploy.conversion import ConvertJob, run_convert
from razordeploy.data.batch import Batch
from razordeploy.job import PTQJob
from razordeploy.pipeline import run_ptq
from razordeploy.source import ModelSource


def engine_latency(
    backend: str, *, int8: bool = True, seconds: float = 0.5, batch: int = 1, threads: int = 0
) -> Callable[[torch.nn.Module, tuple[Any, ...]], float]:
    """A cost ``(model, example inputs) -> milliseconds``: the median of calls of an engine built for the purpose.

    Ranges have no influence on the latency of int8 kernels, so that random inputs calibrate.

    Args:
        backend: its name.
        int8: quantize the model after training; False: an engine in float.
        seconds: time of one measurement.
        batch: samples in a call.
        threads: engine threads; 0: the engine's own choice.

    Raises:
        UsageError: no backend has this name.
    """
    check_names([backend])

    def cost(model: torch.nn.Module, example_inputs: tuple[Any, ...]) -> float:
        generator = torch.Generator().manual_seed(0)
        inputs = tuple(
            torch.randn(x.shape, generator=generator).to(x) if x.is_floating_point() else x for x in example_inputs
        )
        with tempfile.TemporaryDirectory() as folder:
            _build(model, inputs, backend, Path(folder), int8=int8, threads=threads)
            engine = load_engine(Path(folder) / backend, threads=threads)
            return float(engine.benchmark(batch=batch, seconds=seconds).p50_ms)

    return cost


def _build(
    model: torch.nn.Module, inputs: tuple[Any, ...], backend: str, folder: Path, *, int8: bool, threads: int
) -> None:
    training = [(module, module.training) for module in model.modules()]
    common: dict[str, Any] = {
        "backends": (backend,),
        "work_dir": folder,
        "calibration": lambda: [Batch(inputs, None)],
        "threads": threads,
        "benchmark_seconds": 0.0,
    }
    model.eval()
    try:
        if int8:
            run_ptq(PTQJob(model=model, example_inputs=inputs, **common))
        else:
            run_convert(ConvertJob(source=ModelSource.of(capture(model, inputs), DeployConfig()), **common))
    finally:
        for module, mode in training:
            module.training = mode
