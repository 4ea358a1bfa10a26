"""An ONNX file run by ONNX Runtime, measured side by side with engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from razordeploy.artifact import TensorSpec
from razordeploy.backends.base import RuntimeOp
from razordeploy.backends.loaded import checked_inputs, random_arrays
from razordeploy.backends.registry import find_backend
from razordeploy.capture.onnx_import.file import quantized_node, read_onnx, specs


class OnnxFile:
    """The file with the runtime's optimisations on, as it would be deployed.

    Args:
        path: the ``.onnx`` file.
        threads: inference threads; 0: the runtime's own choice.

    Raises:
        ModelError: no ONNX file.
        MissingDependency: ONNX Runtime is not installed.
        BackendError: ONNX Runtime cannot load it.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        model = read_onnx(path)
        self.path = path
        self.is_quantized = quantized_node(model) is not None
        inputs, outputs = specs(model)
        self.inputs: tuple[TensorSpec, ...] = tuple(inputs)
        """Names, shapes (None: open) and dtypes, in call order."""
        self.outputs: tuple[TensorSpec, ...] = tuple(outputs)
        """The same of the outputs; an empty shape where the file does not say."""
        self.runner = find_backend("onnxruntime").load(path.parent, {"engine": path.name}, "engine", threads)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in call order."""
        return tuple(spec.name for spec in self.inputs)

    def __call__(self, *inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run one batch.

        Raises:
            DataError: another number of inputs, another shape or dtype than the file takes.
        """
        return self.runner(*checked_inputs(inputs, self.inputs))

    def runtime_ops(self) -> list[RuntimeOp]:
        """Operations of the runtime's own graph."""
        return self.runner.runtime_ops()

    def random_inputs(self, batch: int = 1, seed: int = 0) -> list[np.ndarray]:
        """Normally distributed inputs ``(batch, ...)``, small integers where the model takes integers.

        Raises:
            UsageError: the file fixes another batch, or leaves more than the batch open.
        """
        return random_arrays(self.inputs, batch, seed, str(self.path))
