"""What the page shows, put together from the report: numbers chosen and ordered, nothing drawn or escaped yet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from razordeploy.report import wording
from razordeploy.report.axis import Axis
from razordeploy.report.blocks import blocks
from razordeploy.report.commands import page_commands
from razordeploy.report.picture import STATES, float_reasons, letter_legend, lines, state_legend, state_of
from razordeploy.report.plots import decibel_axis, latency_axis, latency_curve, layers_plot
from razordeploy.report.recovery import recovery_views
from razordeploy.report.schema import BackendReport, Layer, Number, Op, Report, lookup, passed
from razordeploy.report.scorecard import scorecard
from razordeploy.report.verdict import over_limit, sentence

_WORST_LAYERS = 6
_BOTH = ("float", "engine")
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0}
_INT8_WORDS = ("int8", "uint8", "i8", "u8", "s8", "qint8", "quint8")
_POINTS = {"float": "float", "simulated": "simulated", "engine": "engine"}
_GAPS = {
    "float_to_simulated": "lost by rounding (float to simulated)",
    "simulated_to_engine": "lost by the engine (simulated to engine)",
    "float_to_engine": "lost in all (float to engine)",
}

Table = list[tuple[str, list[str]]]
"""Rows: a label, and one text a backend."""


def page_view(report: Report, directory: Path) -> dict[str, Any]:
    """Return what the template needs; ``directory`` is where the commands on the page point to."""
    backends = report["backends"]
    made = {name: entry for name, entry in backends.items() if "error" not in entry}
    table, rows = operation_table(made)
    engine = wording.engine_word(report)
    return {
        "engine": engine,
        "passed": passed(report),
        "sentence": sentence(report),
        "model": report["model"],
        "created": wording.date(report["created"]),
        "warnings": report.get("warnings", []),
        "problems": [(n, p) for n, e in backends.items() for p in problems(e)],
        "backends": list(backends),
        "made": list(made),
        "scorecard": scorecard(report),
        "facts": facts(report),
        "schemes": [(n, scheme_words(e)) for n, e in made.items()]
        if any(e.get("scheme") for e in made.values())
        else [],
        "accuracy": accuracy_table(made),
        "pictures": [_picture(name, entry, rows) for name, entry in made.items()],
        "letters": letter_legend(report),
        "operations": table,
        "states": STATES,
        "layers": _layers(made, rows),
        "latency": _latency(made),
        "recoveries": recovery_views(made),
        "times": times_table(made, engine),
        "files": [(name, file_links(name, entry)) for name, entry in made.items()],
        "commands": page_commands(report, directory),
        "hardware": _hardware(report),
        "versions": report.get("environment", {}).get("versions", {}),
    }


def problems(entry: BackendReport) -> list[str]:
    """What went wrong with a backend beside the loss of accuracy, which the sentence above tells."""
    if "error" in entry:
        return [entry["error"]]
    notes = wording.rule_notes(entry)
    if "missing" in entry:
        return [*wording.stated_problems(entry), *notes]
    failures = entry.get("failures", [])
    return notes if over_limit(entry) and len(failures) == 1 else [*failures, *notes]


def facts(report: Report) -> list[tuple[str, str]]:
    """What was done, as (term, text); what is not known is left out."""
    calibrations = [report.get("calibration", {}), *(e.get("calibration", {}) for e in report["backends"].values())]
    samples = next((c["samples"] for c in calibrations if c.get("samples") is not None), None)
    seconds = next((c["seconds"] for c in calibrations if c.get("seconds") is not None), None)
    scores = [lookup(e, "metrics", "float", wording.SAMPLES) for e in report["backends"].values()]
    evaluated = next((f"{n:,.0f}" for n in scores if n is not None), None)
    found = {
        "model": report["model"],
        "inputs": ", ".join(_tensor(t) for t in report.get("inputs", [])),
        "outputs": ", ".join(_tensor(t) for t in report.get("outputs", [])),
        "recipe": report.get("recipe"),
        "calibrated on": _data(None if samples is None else f"{samples:,}", calibrations[0].get("source")),
        "calibration took": None if seconds is None else _seconds(seconds),
        "evaluated on": _evaluated(report, evaluated),
        "seed": report.get("seed"),
        "date": wording.date(report["created"]),
    }
    return [(term, str(text)) for term, text in found.items() if text not in (None, "")]


def _evaluated(report: Report, samples: str | None) -> str:
    if samples is None:
        return "nothing: no labelled data" if any("error" not in e for e in report["backends"].values()) else ""
    return _data(samples, report.get("evaluation", {}).get("source"))


def _tensor(tensor: Mapping[str, Any]) -> str:
    sizes = " × ".join("N" if size is None else str(size) for size in tensor["shape"])
    return f"{tensor['name']}: {sizes}, {tensor['dtype']}"


def _data(samples: str | None, source: str | None) -> str:
    return ", ".join(part for part in (f"{samples} samples" if samples else "", source) if part)


def scheme_words(entry: BackendReport) -> list[str]:
    """Say on which grids activations and weights lie: a line for each kind of grid."""
    return [
        f"{s['tensors']} {s['role']} tensors: {s['dtype']}, {'symmetric' if s['symmetric'] else 'asymmetric'}, "
        f"per {'channel' if s['per_channel'] else 'tensor'}, {s['observer']}"
        for s in entry.get("scheme", [])
    ]


def accuracy_table(made: Mapping[str, BackendReport]) -> Table:
    """Metrics at the three points, gaps and parity; rows that nobody measured are left out."""
    entries = list(made.values())
    names = {n: None for e in entries for p in _POINTS for n in lookup(e, "metrics", p) or () if n != wording.SAMPLES}
    rows: Table = [
        (f"{name}, {label}", [wording.with_unit(wording.metric(e, point, name), name) for e in entries])
        for name in names
        for point, label in _POINTS.items()
    ]
    rows += [(label, [_points(lookup(e, "gap", key)) for e in entries]) for key, label in _GAPS.items()]
    limits = {name: None for entry in entries for name in entry.get("limits", {})}
    rows += [
        ("limit on what is lost" if name == "max_drop" else f"limit on {name}", [_limit(e, name) for e in entries])
        for name in limits
    ]
    rows += [
        (
            "engine against simulation, largest difference",
            [wording.significant(lookup(e, "parity", "max_abs")) for e in entries],
        ),
        ("in quantization steps of the output", [wording.significant(lookup(e, "parity", "steps")) for e in entries]),
        ("signal to noise", [_signal(e, "parity") for e in entries]),
        ("outputs against the float model's, signal to noise", [_signal(e, "fidelity") for e in entries]),
    ]
    return _measured(rows)


def _limit(entry: BackendReport, name: str) -> str:
    limit = lookup(entry, "limits", name)
    return _points(limit) if name == "max_drop" else wording.significant(limit)


def _points(gap: Number) -> str:
    text = wording.fixed(gap)
    return text if text == wording.MISSING else f"{text} points"


def _signal(entry: BackendReport, part: str) -> str:
    if lookup(entry, part, "max_abs") == 0:
        return "no noise"
    text = wording.fixed(lookup(entry, part, "sqnr_db"), 1)
    return text if text == wording.MISSING else f"{text} dB"


def _measured(rows: Table) -> Table:
    return [row for row in rows if any(text != wording.MISSING for text in row[1])]


def operation_table(made: Mapping[str, BackendReport]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """List every operation once, with what became of it on each backend; and its row (from 1) by node."""
    found: dict[str, dict[str, Any]] = {}
    for place, entry in enumerate(made.values()):
        decibels = {layer.get("node"): layer.get("sqnr_db") for layer in entry.get("layers", [])}
        for op in entry.get("ops", []):
            row = found.setdefault(op["node"], {**op, "cells": [("", "")] * len(made)})
            row["cells"][place] = (state_of(op), _details(op, decibels.get(op["node"])))
    return list(found.values()), {node: number for number, node in enumerate(found, 1)}


def _details(op: Op, sqnr_db: Number) -> str:
    parts = [op.get("reason", ""), f"runs {op['kernel']}" if "kernel" in op else ""]
    if sqnr_db is not None:
        parts.append(f"{wording.fixed(sqnr_db, 1)} dB")
    return "; ".join(filter(None, parts))


def _picture(name: str, entry: BackendReport, rows: Mapping[str, int]) -> dict[str, Any]:
    ops = entry.get("ops", [])
    return {
        "name": name,
        "lines": lines(blocks([op["module"] for op in ops]), ops, [rows[op["node"]] for op in ops]),
        "legend": state_legend(ops),
        "coverage": entry.get("coverage"),
        "simulated": any(op["state"] == "simulated" for op in ops),
        "reasons": float_reasons(entry),
        "floats": [] if ops else entry.get("coverage", {}).get("float", []),
        "kernels": kernels_by_kind(entry),
    }


def kernels_by_kind(entry: BackendReport) -> list[tuple[str, int, int]]:
    """Count (kind, int8, other) in the engine's own graph, the most frequent first."""
    int8: Counter[str] = Counter()
    rest: Counter[str] = Counter()
    for node in entry.get("graph", []):
        (int8 if node["precision"].lower() in _INT8_WORDS else rest)[node["op"]] += 1
    return [(kind, int8[kind], rest[kind]) for kind, _ in (int8 + rest).most_common()]


def _layers(made: Mapping[str, BackendReport], rows: Mapping[str, int]) -> dict[str, Any]:
    known = {n: [x for x in e.get("layers", []) if _is_finite(x.get("sqnr_db"))] for n, e in made.items()}
    scale = decibel_axis(_decibels(layer) for layers in known.values() for layer in layers)
    return {"axis": scale, "plots": [_layer_plot(n, made[n], layers, scale, rows) for n, layers in known.items()]}


def _layer_plot(
    name: str, entry: BackendReport, layers: list[Layer], scale: Axis, rows: Mapping[str, int]
) -> dict[str, Any]:
    worst = sorted(range(len(layers)), key=lambda i: _decibels(layers[i]))[:_WORST_LAYERS]
    modules = [layer.get("module", "") for layer in layers]
    return {
        "name": name,
        "count": len(layers),
        "silent": len(entry.get("layers", [])) - len(layers),
        "worst": [(rank, rows.get(layers[i].get("node", "")), layers[i]) for rank, i in enumerate(worst, 1)],
        "plot": layers_plot([_decibels(x) for x in layers], modules, worst, scale) if layers else None,
    }


def _latency(made: Mapping[str, BackendReport]) -> dict[str, Any]:
    tables = {n: {p: lookup(e, "latency_ms", p) or {} for p in _BOTH} for n, e in made.items()}
    scale = latency_axis([table for tables_ in tables.values() for table in tables_.values()])
    return {"axis": scale, "plots": [_latency_plot(n, made[n], tables[n], scale) for n in made]}


def _latency_plot(name: str, entry: BackendReport, table: Mapping[str, Any], scale: Axis | None) -> dict[str, Any]:
    samples = {p: _finite(lookup(entry, "latency_samples_ms", p) or ()) for p in _BOTH}
    curves = {}
    for point, percentiles in table.items():
        known = [(share, percentiles[p]) for p, share in _PERCENTILES.items() if _is_finite(percentiles.get(p))]
        if scale is not None and (known or samples[point]):
            curves[point] = latency_curve(samples[point], known, scale)
    return {
        "name": name,
        "curves": curves,
        "table": {
            p: [wording.significant(t.get(rank)) for rank in _PERCENTILES]
            for p, t in table.items()
            if any(map(_is_finite, t.values()))
        },
        "speedup": entry.get("speedup"),
        "calls": min((len(s) for s in samples.values() if s), default=0),
        "benchmark": entry.get("benchmark", {}),
    }


def times_table(made: Mapping[str, BackendReport], engine: str = "int8") -> Table:
    """Sizes, and the seconds that each step took; rows that nobody measured are left out."""
    entries = list(made.values())
    steps = {step: None for entry in entries for step in entry.get("seconds", {})}
    rows: Table = [
        ("float engine", [wording.size(lookup(e, "size_bytes", "float")) for e in entries]),
        (
            f"{engine} engine" if engine == "int8" else engine,
            [wording.size(lookup(e, "size_bytes", "engine")) for e in entries],
        ),
    ]
    rows += [(step, [_seconds(lookup(e, "seconds", step)) for e in entries]) for step in steps]
    if "calibrate" not in steps:
        rows.append(("calibrate", [_seconds(lookup(e, "calibration", "seconds")) for e in entries]))
    return _measured(rows)


def _seconds(seconds: Number) -> str:
    text = wording.significant(seconds)
    return text if text == wording.MISSING else f"{text} s"


def file_links(name: str, entry: BackendReport) -> list[tuple[str, str, str]]:
    """Return (role, path below the page, the same as a link)."""
    files = dict(entry.get("files", {}))
    if files:
        files["manifest"] = "manifest.json"
    return [(role, f"{name}/{file}", quote(f"{name}/{file}", errors="replace")) for role, file in files.items()]


def _hardware(report: Report) -> list[tuple[str, str]]:
    found = report.get("environment", {})
    flags = found.get("cpu_flags", [])
    rows = {
        "processor": found.get("cpu"),
        "int8 dot products": wording.hardware(flags) if found else None,
        "vector instructions": " ".join(flags),
        "cores": found.get("threads"),
        "system": found.get("os"),
        "Python": found.get("python"),
    }
    return [(name, str(value)) for name, value in rows.items() if value not in (None, "")]


def _decibels(layer: Layer) -> float:
    found = layer.get("sqnr_db")
    return math.inf if found is None else found


def _is_finite(number: Number) -> bool:
    return number is not None and math.isfinite(number)


def _finite(values: Iterable[Number] | Sequence[Number]) -> list[float]:
    return [number for number in values if number is not None and math.isfinite(number)]
