"""Run an OpenVINO IR and read back what its CPU plugin really executes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from razordeploy.backends.base import RuntimeOp
from razordeploy.errors import BackendError
from razordeploy.lazy import require

_LAYERS = {"Convolution", "FullyConnected", "MatMul"}
_BIAS = re.compile(r"(.+)\.Add\.\d+$")
"""Name under which the exporter writes the bias of a layer; OpenVINO may keep it instead of the layer's own."""
PRODUCT = ".product"
"""Added to the name of a product whose scale has the product's own: OpenVINO may keep either."""
_NOT_COMPUTE = {"Input", "Output", "Const", "Constant", "Parameter", "Result", "Reorder"}


class OpenVINORunner:
    """A compiled model with one infer request.

    Args:
        path: the ``.xml``.
        threads: inference threads; 0 lets OpenVINO choose.
        counters: time every operation, which costs some.
    """

    def __init__(self, path: Path, threads: int = 0, *, counters: bool = False) -> None:
        ov = require("openvino", extra="openvino")
        config: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            # Weight-only layers would otherwise quantize activations on the fly, and AMX machines compute in bf16:
            # either changes the numbers that the simulation promised.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if counters:
            config["PERF_COUNT"] = True
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            self.compiled = _core(ov).compile_model(str(path), "CPU", config)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot compile {path}: {str(error).strip().splitlines()[-1]}") from error
        self.request = self.compiled.create_infer_request()
        self.input_names = tuple(port.get_any_name() for port in self.compiled.inputs)
        self._outputs = list(self.compiled.outputs)

    def __call__(self, *inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run one batch of ``(N, ...)`` arrays; one output comes back bare, several as a tuple."""
        result = self.request.infer(list(inputs), share_inputs=True, share_outputs=False)
        values = tuple(np.array(result[port]) for port in self._outputs)
        return values[0] if len(values) == 1 else values

    def runtime_ops(self) -> list[RuntimeOp]:
        """Operations of the compiled graph with the precision their kernels compute in."""
        ops = []
        for node in self.compiled.get_runtime_model().get_ordered_ops():
            info = node.get_rt_info()
            kind = str(info["layerType"].astype(str)) if "layerType" in info else node.get_type_name()
            if kind in _NOT_COMPUTE:
                continue
            precision = str(info["runtimePrecision"].astype(str)) if "runtimePrecision" in info else ""
            if kind in _LAYERS and "primitiveType" in info:
                # A layer whose weights alone are integers has them as its precision; what reads f32 is its kernel.
                precision = str(info["primitiveType"].astype(str)).rpartition("_")[2]
            origins = str(info["originalLayersNames"].astype(str)) if "originalLayersNames" in info else ""
            names = [o for o in origins.split(",") if o]
            names += [o.removesuffix(PRODUCT) for o in (*names, node.get_friendly_name()) if o.endswith(PRODUCT)]
            if kind == "Reduce":  # pooling to one cell; where it loses the name, the reshape behind it has it
                readers = [port.get_node() for port in node.output(0).get_target_inputs()]
                names += [n.get_friendly_name() for n in readers if "layerType" in n.get_rt_info()
                          and str(n.get_rt_info()["layerType"].astype(str)) == "Reshape"]  # fmt: skip
            bias = _BIAS.match(node.get_friendly_name())
            if kind in _LAYERS and bias is not None:
                names.append(bias[1])
            ops.append(
                RuntimeOp(
                    name=node.get_friendly_name(),
                    type=kind,
                    precision=precision.lower(),
                    origins=tuple(names),
                )
            )
        return ops


def load(folder: Path, files: Mapping[str, str], role: str, threads: int) -> OpenVINORunner:
    """Load the ``engine`` or the ``float`` twin of an artifact folder."""
    return OpenVINORunner(folder / files[role], threads)


_CORE: list[Any] = []


def _core(ov: Any) -> Any:
    if not _CORE:
        _CORE.append(ov.Core())
    return _CORE[0]
