"""Run a QDQ ONNX model and read back what ONNX Runtime really executes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from razordeploy.backends.base import RuntimeOp
from razordeploy.errors import BackendError
from razordeploy.lazy import require

_INTEGER_KERNELS = {"QGemm", "MatMulIntegerToFloat", "ConvInteger", "MatMulInteger"}
_QGEMM_OUTPUT_SCALE = 7
"""Position of the input without which QGemm gives float."""
_MOVES = {"QuantizeLinear", "DequantizeLinear", "Constant", "Identity"}


class ONNXRuntimeRunner:
    """One CPU inference session.

    Args:
        path: the ``.onnx``.
        threads: intra-op threads; 0 lets ONNX Runtime choose.
        optimize: False switches every graph optimisation off, which runs the file exactly as written.
        profile: what the file begins with that the times of every operation go to; None times nothing.
    """

    def __init__(self, path: Path, threads: int = 0, *, optimize: bool = True, profile: Path | None = None) -> None:
        self._ort = require("onnxruntime", extra="onnxruntime")
        self._ort.disable_telemetry_events()
        self.path = path
        options = self._options(threads)
        if not optimize:
            options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        self.session = self._session(options)
        self.input_names = tuple(i.name for i in self.session.get_inputs())

    def _options(self, threads: int) -> Any:
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        return options

    def _session(self, options: Any) -> Any:
        try:
            return self._ort.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its error classes have no public base
            raise BackendError(f"ONNX Runtime cannot load {self.path}: {str(error).strip().splitlines()[0]}") from error

    def __call__(self, *inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run one batch of ``(N, ...)`` arrays; one output comes back bare, several as a tuple."""
        feeds = dict(zip(self.input_names, inputs, strict=True))
        values = self.session.run(None, feeds)
        return values[0] if len(values) == 1 else tuple(values)

    def runtime_ops(self) -> list[RuntimeOp]:
        """Operations of the optimised graph with the type their kernels compute in."""
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "optimized.onnx"
            options = self._options(1)
            options.optimized_model_filepath = str(target)
            self._session(options)
            graph = onnx.load(target).graph
        types = _element_types(graph)
        return [
            RuntimeOp(name=n.name, type=n.op_type, precision=_precision(n, types), origins=(n.name, *n.output))
            for n in graph.node
            if n.op_type not in _MOVES
        ]


def _element_types(graph: Any) -> dict[str, str]:
    import onnx

    names = {onnx.TensorProto.UINT8: "u8", onnx.TensorProto.INT8: "i8", onnx.TensorProto.FLOAT: "f32"}
    types = {i.name: names.get(i.data_type, "") for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            types[node.output[0]] = types.get(node.input[2], "u8") if len(node.input) > 2 else "u8"
    return types


def _precision(node: Any, types: dict[str, str]) -> str:
    kind: str = node.op_type
    inputs = [types.get(i, "") for i in node.input]
    if kind.startswith("QLinear") or kind in _INTEGER_KERNELS:
        computed = next((t for t in inputs if t in {"u8", "i8"}), "u8")
        if kind.startswith("QLinear") or (kind == "QGemm" and len(inputs) > _QGEMM_OUTPUT_SCALE):
            for output in node.output:
                types[output] = computed
        return computed
    if inputs and inputs[0] in {"u8", "i8"}:
        for output in node.output:
            types[output] = inputs[0]  # max pooling, reshapes and the like work on the integers
        return inputs[0]
    return "f32"


def load(folder: Path, files: Mapping[str, str], role: str, threads: int) -> ONNXRuntimeRunner:
    """Load the ``engine`` or the ``float`` twin of an artifact folder."""
    return ONNXRuntimeRunner(folder / files[role], threads)
