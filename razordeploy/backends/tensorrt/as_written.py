"""Run the exported graph as it is written: the same numbers that the pairs promise, without an engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from razordeploy.backends.base import RuntimeOp
from razordeploy.errors import BackendError
from razordeploy.lazy import require


class AsWritten:
    """A QDQ ONNX file under ONNX Runtime with every graph optimisation off.

    Args:
        path: the ``.onnx``.
        threads: intra-op threads; 0 lets ONNX Runtime choose.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        ort = require("onnxruntime", extra="tensorrt")
        ort.disable_telemetry_events()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        try:
            self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its error classes have no public base
            line = str(error).strip().splitlines()[0]
            raise BackendError(f"ONNX Runtime cannot load {path}: {line}") from error
        self.input_names = tuple(i.name for i in self.session.get_inputs())

    def __call__(self, *inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run one batch of ``(N, ...)`` arrays; one output comes back bare, several as a tuple."""
        values = self.session.run(None, dict(zip(self.input_names, inputs, strict=True)))
        return values[0] if len(values) == 1 else tuple(values)

    def runtime_ops(self) -> list[RuntimeOp]:
        """Nothing: no engine, and no kernel that computes in integers."""
        return []
