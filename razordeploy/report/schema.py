"""The structure of report.json: what every reader of it may rely on."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

from razordeploy.errors import UsageError, nearest

SCHEMA_VERSION = 1

Number = float | None
"""A finite number; None where it was not measured or came out as NaN or infinity."""


class Metrics(TypedDict, total=False):
    """Metric name to value (``top1`` in percent) at the three points where the model is measured."""

    float: dict[str, Number]
    simulated: dict[str, Number]
    engine: dict[str, Number]


class Gap(TypedDict, total=False):
    """How much of the first metric is lost from one point to the next, in points; negative is a gain."""

    float_to_simulated: Number
    simulated_to_engine: Number
    float_to_engine: Number


class FloatOp(TypedDict):
    """An operation that was planned or could have been int8 and runs in float."""

    node: str
    op: str
    reason: str


class Coverage(TypedDict):
    """Operations, counted in the engine's own graph."""

    planned: int
    int8: int
    float: list[FloatOp]


class Parity(TypedDict, total=False):
    """Engine against simulation, over all outputs."""

    max_abs: Number
    sqnr_db: Number
    steps: Number


class Fidelity(TypedDict, total=False):
    """Engine against the float model on a few calibration samples; the SQNR is that of the worst output."""

    max_abs: Number
    sqnr_db: Number
    samples: int


class Percentiles(TypedDict, total=False):
    """Latency of one call in milliseconds."""

    p50: Number
    p90: Number
    p99: Number


class Latency(TypedDict, total=False):
    """The float engine and the int8 engine of the same runtime, timed in turns."""

    float: Percentiles
    engine: Percentiles


class LatencySamples(TypedDict, total=False):
    """Every timed call in milliseconds."""

    float: list[Number]
    engine: list[Number]


class Size(TypedDict, total=False):
    """All files of a model in bytes, weights in external files included."""

    float: int
    engine: int


class Calibration(TypedDict, total=False):
    """The calibration pass; ``source`` and ``sha256`` say which data it saw."""

    samples: int
    seconds: Number
    source: str
    sha256: str


class _RecoveryStep(TypedDict):
    name: str
    kept: bool
    seconds: Number


class RecoveryStep(_RecoveryStep, total=False):
    """One attempt: points that its engine loses, and gains over the best before it; ``note`` says what it did."""

    drop: Number
    gained: Number
    int8: int
    """Operations that are quantized in it."""
    note: str


class Recovery(TypedDict, total=False):
    """From what the plain engine loses to what the best one does.

    In points of the metric or, without labels, in ``100 (1 - cosine)`` of the outputs to the float model's.
    """

    of: str
    """``metric`` or ``outputs``."""
    target: Number
    met: bool
    start: Number
    end: Number
    algorithms: list[str]
    """What the engine that was kept went through, in order."""
    float: list[str]
    """Operations that went back to float."""
    steps: list[RecoveryStep]


class PlacementTrial(TypedDict):
    """One group of operations in float: the engine's latency over that of the engine with all of it in int8."""

    group: str
    ops: int
    ratio: Number


class Placement(TypedDict, total=False):
    """What placement by measured cost tried, and what it left in float."""

    tried: list[PlacementTrial]
    kept: list[str]
    """Groups that stay in float."""
    float: int
    """Operations in them."""
    ratio: Number | None
    """Latency of the engine over that of the one with everything in int8, measured again; None: nothing was faster."""


class Seconds(TypedDict, total=False):
    """Wall-clock time of each step."""

    capture: Number
    calibrate: Number
    place: Number
    improve: Number
    measure_placement: Number
    recover: Number
    export: Number
    train: Number
    validate: Number


class Layer(TypedDict, total=False):
    """One quantized layer against its float twin."""

    node: str
    module: str
    op: str
    sqnr_db: Number


class GraphNode(TypedDict):
    """A node of the runtime's own graph; ``precision`` is int8, uint8, float32, ..."""

    name: str
    op: str
    precision: str


class _Op(TypedDict):
    node: str
    op: str
    module: str
    state: str


class Op(_Op, total=False):
    """An operation of the captured graph, in execution order.

    ``state``: ``int8``; ``simulated`` (int8 values, no engine); ``fused`` (inside the kernel of the operation before);
    ``moves`` (values are moved, nothing is computed); ``float``, for ``reason``. ``kernel``: what the engine runs.
    """

    reason: str
    planned: bool
    """Only of a float one: True where it was to run in int8."""
    kernel: str


class Scheme(TypedDict):
    """One kind of grid, and how many tensors lie on such a one; ``observer`` is the range estimator."""

    role: str
    dtype: str
    symmetric: bool
    per_channel: bool
    observer: str
    tensors: int


class Benchmark(TypedDict, total=False):
    """How the latency was measured: samples in a call, and engine threads (0: the engine's choice)."""

    batch: int
    threads: int


class Tensor(TypedDict):
    """An input or output of the model; None in ``shape`` is a dynamic axis."""

    name: str
    shape: list[int | None]
    dtype: str


class Evaluation(TypedDict, total=False):
    """The labelled data that accuracy was measured on."""

    source: str


class Finding(TypedDict):
    """A node of the exported graph that breaks one of the backend's rules; ``severity``: error, or note (slower)."""

    node: str
    rule: str
    message: str
    severity: str


class _Verdict(TypedDict):
    passed: bool


class BackendReport(_Verdict, total=False):
    """One backend. Only ``passed`` is always there: a failed backend has ``error`` instead of numbers."""

    metrics: Metrics
    gap: Gap
    coverage: Coverage
    parity: Parity
    fidelity: Fidelity
    astray: bool
    """The engine's outputs are farther from the simulation's than those are from the float model's."""
    latency_ms: Latency
    latency_samples_ms: LatencySamples
    speedup: Number
    size_bytes: Size
    calibration: Calibration
    limits: dict[str, Number]
    """What was checked; ``max_drop`` bounds ``gap.float_to_engine`` in points."""
    failures: list[str]
    """The checks that did not hold, one sentence each."""
    findings: list[Finding]
    """What the backend's structural rules say of the exported graph."""
    error: str
    exit_code: int
    missing: str
    """What building the engine lacks here: the graph is written and simulated, and there is no engine."""
    build: str
    """The command that builds the engine on a machine that can."""
    layers: list[Layer]
    graph: list[GraphNode]
    ops: list[Op]
    scheme: list[Scheme]
    benchmark: Benchmark
    files: dict[str, str]
    """Role to file name in the backend's folder."""
    usage: str
    """Python that runs the engine with its runtime alone."""
    seconds: Seconds
    recovery: Recovery
    placement: Placement


class Environment(TypedDict, total=False):
    """Where it ran."""

    versions: dict[str, str]
    cpu: str
    cpu_flags: list[str]
    os: str
    python: str
    threads: int


class _Always(TypedDict):
    schema_version: int
    model: str
    created: str
    backends: dict[str, BackendReport]


class Report(_Always, total=False):
    """The whole file; ``created`` is ISO 8601, ``command`` can be pasted into a shell."""

    recipe: str | None
    seed: int | None
    environment: Environment
    command: str
    calibration: Calibration
    evaluation: Evaluation
    inputs: list[Tensor]
    outputs: list[Tensor]
    warnings: list[str]


def lookup(part: Mapping[str, Any], *keys: str) -> Any:
    """Return what lies below ``keys``, for example ``"latency_ms", "engine", "p50"``; None where nothing does."""
    found: Any = part
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def gaps(metrics: Metrics, metric: str = "top1") -> Gap:
    """Compute the three gaps of ``metric`` in points: positive is what was lost, None where a side is missing."""

    def lost(first: Mapping[str, Number], second: Mapping[str, Number]) -> Number:
        before, after = first.get(metric), second.get(metric)
        return None if before is None or after is None else before - after

    reference, simulated, engine = metrics.get("float", {}), metrics.get("simulated", {}), metrics.get("engine", {})
    return {
        "float_to_simulated": lost(reference, simulated),
        "simulated_to_engine": lost(simulated, engine),
        "float_to_engine": lost(reference, engine),
    }


def passed(report: Report) -> bool:
    """Tell whether there is a backend and every one of them passed."""
    backends = report["backends"].values()
    return bool(backends) and all(entry["passed"] and "error" not in entry for entry in backends)


def check_report(report: Mapping[str, Any]) -> None:
    """Hold ``report`` against the structure.

    Raises:
        UsageError: a field is unknown, missing or of another type; the message names its place.
    """
    _check(report, Report, "report")


def _check(value: Any, kind: Any, where: str) -> None:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        _check_fields(value, kind, where)
    elif origin in (Union, types.UnionType):
        if value is not None:
            _check(value, next(option for option in arguments if option is not type(None)), where)
    elif origin is dict:
        _check_type(value, Mapping, where)
        for key, item in value.items():
            _check(item, arguments[1], f"{where}.{key}")
    elif origin is list:
        _check_type(value, list | tuple, where)
        for index, item in enumerate(value):
            _check(item, arguments[0], f"{where}[{index}]")
    else:
        _check_type(value, int | float if kind is float else kind, where)


def _check_fields(value: Any, kind: Any, where: str) -> None:
    _check_type(value, Mapping, where)
    fields = get_type_hints(kind)
    for key in value:
        if key not in fields:
            raise UsageError(f"unknown field '{key}' in {where}", hint=nearest(str(key), fields))
    if missing := sorted(kind.__required_keys__ - set(value)):
        raise UsageError(f"{where} has no '{missing[0]}'", hint=f"needed: {', '.join(sorted(kind.__required_keys__))}")
    for key, item in value.items():
        _check(item, fields[key], f"{where}.{key}")


def _check_type(value: Any, kind: Any, where: str) -> None:
    # A bool is an int to Python, and a sample count of True is a mistake.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        name = getattr(kind, "__name__", str(kind))
        raise UsageError(f"expected {name} at {where}, got {type(value).__name__}")
