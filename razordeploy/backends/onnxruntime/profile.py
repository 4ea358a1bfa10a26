"""How long each operation of an optimised graph takes."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from razordeploy.backends.base import RuntimeOp, TimedOp
from razordeploy.backends.onnxruntime.engine import ONNXRuntimeRunner

_CALLS = 20
_WARM_UP = 3
_SUFFIX = "_kernel_time"


def profile(
    folder: Path, files: Mapping[str, str], role: str, threads: int, inputs: Sequence[np.ndarray]
) -> list[TimedOp]:
    """Operations of the ``engine`` or the ``float`` twin, with the median time of each over some calls."""
    with tempfile.TemporaryDirectory() as place:
        runner = ONNXRuntimeRunner(folder / files[role], threads, profile=Path(place) / "profile")
        for _ in range(_WARM_UP + _CALLS):
            runner(*inputs)
        events = json.loads(Path(runner.session.end_profiling()).read_text())
    times: dict[str, list[float]] = {}
    types: dict[str, str] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            times.setdefault(name.removesuffix(_SUFFIX), []).append(event["dur"] / 1e3)
            types[name.removesuffix(_SUFFIX)] = str(event.get("args", {}).get("op_name", ""))
    known = {op.name: op for op in runner.runtime_ops()}
    return [
        # A conversion is no operation of the model, but takes its time.
        TimedOp(op=known.get(name) or RuntimeOp(name=name, type=types[name], precision="f32"), ms=_median(values))
        for name, values in times.items()
    ]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values[min(_WARM_UP, len(values) - 1) :])
