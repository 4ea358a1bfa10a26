"""ONNX Runtime on the file as it is written: what an import has to agree with."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from razordeploy.capture.onnx_import.file import read_onnx
from razordeploy.errors import ModelError
from razordeploy.lazy import require


class Reference:
    """A session without graph optimisations.

    Raises:
        MissingDependency: ONNX Runtime is not installed.
        ModelError: it cannot load the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ort = require("onnxruntime", extra="onnxruntime")
        self._ort.disable_telemetry_events()
        self._session = self._open(path)

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for one batch.

        Raises:
            ModelError: it cannot run on these inputs.
        """
        return self._run(self._session, inputs)

    def values(self, inputs: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        """Inner values by name; names that the file does not have are left out."""
        import onnx_ir as ir

        model = read_onnx(self.path)
        outputs = {v.name for v in model.graph.outputs}
        wanted, made = set(names), {v.name: v for node in model.graph for v in node.outputs}
        model.graph.outputs.extend(v for name, v in made.items() if name in wanted and name not in outputs)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "values.onnx"
            ir.save(model, file, external_data="weights.bin")
            session = self._open(file)
            found = dict(zip((o.name for o in session.get_outputs()), self._run(session, inputs), strict=True))
        return {name: value for name, value in found.items() if name in wanted}

    def _open(self, path: Path) -> Any:
        options = self._ort.SessionOptions()
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        try:
            return self._ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its error classes have no public base
            raise ModelError(f"ONNX Runtime cannot load {self.path}: {_reason(error)}") from error

    def _run(self, session: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        feeds = dict(zip((i.name for i in session.get_inputs()), inputs, strict=True))
        try:
            return list(session.run(None, feeds))
        except Exception as error:
            shapes = ", ".join(f"{name} {x.shape}" for name, x in feeds.items())
            raise ModelError(f"ONNX Runtime cannot run {self.path} on {shapes}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
