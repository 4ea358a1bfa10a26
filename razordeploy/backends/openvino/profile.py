"""How long each operation of a compiled model takes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from razordeploy.backends.base import TimedOp
from razordeploy.backends.openvino.engine import OpenVINORunner

_CALLS = 20
_WARM_UP = 3


def profile(
    folder: Path, files: Mapping[str, str], role: str, threads: int, inputs: Sequence[np.ndarray]
) -> list[TimedOp]:
    """Operations of the ``engine`` or the ``float`` twin, with the median time of each over some calls."""
    runner = OpenVINORunner(folder / files[role], threads, counters=True)
    times: dict[str, list[float]] = {}
    for call in range(_WARM_UP + _CALLS):
        runner(*inputs)
        if call < _WARM_UP:
            continue
        for info in runner.request.get_profiling_info():
            times.setdefault(info.node_name, []).append(info.real_time.total_seconds() * 1e3)
    return [TimedOp(op=op, ms=statistics.median(times[op.name])) for op in runner.runtime_ops() if op.name in times]
