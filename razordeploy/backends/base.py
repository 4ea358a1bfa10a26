"""What a backend is: a name, its YAML, and four functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from razordeploy.artifact import TensorSpec
from razordeploy.capture.graph import CapturedModel
from razordeploy.config.backend_spec import BackendSpec
from razordeploy.errors import MissingDependency
from razordeploy.quantization.placement import Settings
from razordeploy.quantization.plan import QParams, QuantPlan


@dataclass(frozen=True, kw_only=True)
class RuntimeOp:
    """One operation of the engine's own graph."""

    name: str
    type: str
    precision: str
    """Element type that the kernel computes in: u8, i8, f32, ..."""
    origins: tuple[str, ...] = ()
    """Names of the exported operations that were fused into it."""

    @property
    def int8(self) -> bool:
        """True when the kernel computes in 8-bit integers."""
        return self.precision in {"u8", "i8"}


@dataclass(frozen=True, kw_only=True)
class TimedOp:
    """One operation of the engine's own graph, and how long it takes."""

    op: RuntimeOp
    ms: float
    """Median over some calls, in milliseconds."""


@dataclass(frozen=True, kw_only=True)
class FloatOp:
    """A planned operation that the engine did not run in int8, or one that was never planned."""

    node: str
    op: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Planned against actual int8 operations."""

    planned: int
    int8: int
    float_ops: tuple[FloatOp, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Latency of one engine, in milliseconds, and its throughput in samples per second."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    throughput: float
    samples_ms: tuple[float, ...] = field(default=(), repr=False)


class Runner(Protocol):
    """A loaded model, float or int8, that takes and gives arrays."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in call order."""

    def __call__(self, *inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run one batch: arrays ``(N, ...)`` in the model's input order."""

    def runtime_ops(self) -> list[RuntimeOp]:
        """Operations of the engine's own graph."""


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """All that an exporter needs; ``marked`` is made once and shared by the backends that read ONNX."""

    captured: CapturedModel
    """The graph whose weights are quantized."""
    plan: QuantPlan
    params: Mapping[str, QParams]
    out_dir: Path
    marked: Any = None
    """``onnx_passes.export.MarkedModel`` of ``captured``; None for backends that do not read ONNX."""
    float_captured: CapturedModel | None = None
    """The float model of the twin; None: ``captured``, which no algorithm and no training has changed."""
    float_marked: Any = None
    """The same of ``marked``."""
    with_twin: bool = True
    """False: the float twin is not needed; the exporter may leave it out."""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def twin(self) -> CapturedModel:
        """The float model that the engine is compared with."""
        return self.captured if self.float_captured is None else self.float_captured

    @property
    def twin_marked(self) -> Any:
        """The same as ``MarkedModel``."""
        return self.marked if self.float_marked is None else self.float_marked


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One backend folder."""

    spec: BackendSpec
    plan: Callable[[CapturedModel, Settings], QuantPlan]
    export: Callable[[ExportJob], dict[str, str]]
    """Writes the engine and its float twin into ``out_dir``; returns role -> file name (``engine``, ``float``, ...)."""
    load: Callable[[Path, Mapping[str, str], str, int], Runner]
    """``(folder, files, role, threads) -> runner`` for the role ``engine`` or ``float``."""
    convert: Callable[[Path, Path], dict[str, str]] | None = None
    """``(onnx file, folder) -> files``: writes the engine of an ONNX file as it is, float or quantized, and returns
    role -> file name. None: this backend's engines are made of the captured graph alone."""
    profile: Callable[[Path, Mapping[str, str], str, int, Sequence[np.ndarray]], list[TimedOp]] | None = None
    """``(folder, files, role, threads, inputs) -> operations`` with the time of each; None: the engine does not tell,
    and ``placement="measured"`` has nothing to go by."""
    simulated_only: bool = False
    """True: there is no engine; the simulation is the result."""
    absent: Callable[[], MissingDependency | None] = lambda: None
    """Why engines cannot be built and run here although ``export`` can write the graph that they are made of, under
    the role ``onnx``; None: they can."""
    build_line: Callable[[Path, Sequence[TensorSpec], int, int], str] | None = None
    """``(onnx file, inputs, batch, largest batch) -> command`` that builds the engine elsewhere."""
    needs_onnx: bool = True
    """True: exported from the shared ONNX model."""
    required: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Name on the command line and of the folder."""
        return self.spec.name
