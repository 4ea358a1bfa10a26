"""An engine as mmdeploy's backend models call it: tensors by name in, tensors by name out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from razordeploy.backends.base import Runner
from razordeploy.backends.registry import find_backend


def engine_wrapper(backend: str, path: Path, output_names: Sequence[str] | None) -> Any:
    """Load ``path`` and wrap it.

    Args:
        backend: mmdeploy's and our name of it.
        path: the engine; for TensorRT an ``.onnx`` runs as it is written, on the CPU.
        output_names: of the deploy config, in the engine's order; None: ``output_0``, ``output_1`` ...
    """
    role = "onnx" if backend == "tensorrt" and path.suffix == ".onnx" else "engine"
    runner = find_backend(backend).load(path.parent, {role: path.name}, role, 0)
    return _wrapper_class(backend)(runner, output_names)


@cache
def _wrapper_class(backend: str) -> Any:
    """One class a backend: mmdeploy's timer takes each name once."""
    from mmdeploy.backend.base import BaseWrapper
    from mmdeploy.utils.timer import TimeCounter

    TimeCounter.names.pop(backend, None)  # that of the stock wrapper, where something has imported it

    class EngineWrapper(BaseWrapper):
        """Runs the engine; mmdeploy's profiler times ``execute``."""

        def __init__(self, runner: Runner, output_names: Sequence[str] | None) -> None:
            super().__init__(list(output_names or ()))
            self.runner = runner

        def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            """``{name: (N, ...)}`` to ``{name: (N, ...)}``, on the device of the inputs."""
            names = [name for name in self.runner.input_names if name in inputs] or list(inputs)
            device = inputs[names[0]].device
            arrays = [np.ascontiguousarray(inputs[name].detach().cpu().numpy()) for name in names]
            values = self.execute(arrays)
            named = self.output_names or [f"output_{i}" for i in range(len(values))]
            return {name: torch.from_numpy(v).to(device) for name, v in zip(named, values, strict=False)}

        @TimeCounter.count_time(backend)
        def execute(self, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
            """One call of the engine."""
            values = self.runner(*arrays)
            return values if isinstance(values, tuple) else (values,)

    return EngineWrapper
