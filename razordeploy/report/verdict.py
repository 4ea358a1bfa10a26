"""The verdict in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from razordeploy.report import wording
from razordeploy.report.schema import BackendReport, Report, lookup, passed

_NAMED = 2
"""Speeds named one by one; of more, the lowest and the highest."""


def sentence(report: Report) -> str:
    """Say whether the run passed and why, for somebody who reads nothing else."""
    backends = report["backends"]
    if not backends:
        return "Nothing was checked: no backend was run."
    metric = wording.metric_name(report)
    if not passed(report):
        return f"Not passed: {'; '.join(_faults(backends, metric))}."
    gaps = {name: gap for name, entry in backends.items() if (gap := _gap(entry)) is not None}
    unknown = [name for name in backends if name not in gaps]
    engine = wording.engine_word(report)
    words = [
        _accuracy(gaps, backends, metric, engine) if gaps else "no check failed, but accuracy was not measured",
        f"accuracy was not measured on {listed(unknown)}" if gaps and unknown else "",
        _speed(backends, engine),
    ]
    return f"Passed: {'; '.join(filter(None, words))}."


def _held(entry: BackendReport) -> bool:
    return entry["passed"] and "error" not in entry


def over_limit(entry: BackendReport) -> bool:
    """Tell whether more accuracy is lost than the limit allows."""
    gap, limit = _gap(entry), _limit(entry)
    return gap is not None and limit is not None and gap > limit


def _faults(backends: Mapping[str, BackendReport], metric: str) -> list[str]:
    """One clause for each thing that went wrong, with all the backends that it went wrong on."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, entry in backends.items():
        if not _held(entry):
            found.setdefault(_fault(entry, metric), []).append(name)
    return [f"{listed(names)} {one if len(names) == 1 else many}" for (one, many), names in found.items()]


def _fault(entry: BackendReport, metric: str) -> tuple[str, str]:
    """What one backend, and what several, did wrong."""
    if "error" in entry:
        return "made no engine", "made no engines"
    if "missing" in entry and not entry.get("failures"):
        return "wrote the graph, and no engine was built", "wrote graphs, and no engines were built"
    if over_limit(entry):
        rest = f"{wording.fixed(_gap(entry))} points of {metric}, over the limit of {_limit(entry):g}"
        return f"loses {rest}", f"lose {rest}"
    failures = entry.get("failures")
    return (f"failed: {failures[0]}",) * 2 if failures else ("failed a check",) * 2


def _accuracy(gaps: dict[str, float], backends: dict[str, BackendReport], metric: str, engine: str) -> str:
    worst = max(gaps, key=lambda name: gaps[name])
    gap, limit = gaps[worst], _limit(backends[worst])
    several = len(backends) > 1
    subject = f"the {'int8 model' if engine == 'int8' else engine}{'s' if several else ''}"
    bound = [worst] * several + ([] if limit is None else [f"limit {limit:g}"])
    within = f" ({', '.join(bound)})" if bound else ""
    if round(gap, 2) > 0:
        return f"{subject} {'lose at most' if several else 'loses'} {wording.fixed(gap)} points of {metric}{within}"
    return f"{subject} {'lose' if several else 'loses'} nothing of the float model's {metric}"


def _speed(backends: dict[str, BackendReport], engine: str) -> str:
    known = {name: s for name, e in backends.items() if (s := e.get("speedup")) is not None and math.isfinite(s)}
    if not known:
        return ""
    subject = engine if engine == "int8" else f"the {engine}"
    if len(known) == 1 == len(backends):
        speed = next(iter(known.values()))
        slower = ", which is slower" if round(speed, 2) < 1 else ""
        return f"{subject} runs at {wording.ratio(speed)} the speed of float{slower}"
    words = [f"{wording.ratio(speed)} ({name})" for name, speed in known.items()]
    if len(words) > _NAMED:
        ordered = sorted(known, key=lambda name: known[name])
        slow, fast = (f"{wording.ratio(known[name])} ({name})" for name in (ordered[0], ordered[-1]))
        return f"{subject} runs at {slow} to {fast} the speed of float"
    return f"{subject} runs at {listed(words)} the speed of float"


def listed(words: Sequence[str]) -> str:
    """Write ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _gap(entry: BackendReport) -> float | None:
    gap: float | None = lookup(entry, "gap", "float_to_engine")
    return gap


def _limit(entry: BackendReport) -> float | None:
    limit: float | None = lookup(entry, "limits", "max_drop")
    return limit
