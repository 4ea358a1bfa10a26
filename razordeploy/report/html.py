"""The page: one file, no network, no script."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from razordeploy import lazy
from razordeploy.report import figures, wording
from razordeploy.report.commands import next_commands
from razordeploy.report.schema import BackendReport, Layer, Number, Report, passed

_KINDS_DRAWN = 14
_WORST_LAYERS = 6
_INT8_WORDS = ("int8", "uint8", "i8", "u8", "s8", "qint8", "quint8")


def render_html(report: Report, directory: Path) -> str:
    """Return the page for ``report``; ``directory`` is where the commands on it point to.

    Parts that were not measured are left out, a backend that failed shows its error. Every name is escaped.
    """
    from jinja2 import ChainableUndefined, Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("razordeploy.report"),
        autoescape=True,
        undefined=ChainableUndefined,
        finalize=_plain_unless_markup,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        fixed=wording.fixed,
        significant=wording.significant,
        size=wording.size,
        ratio=wording.ratio,
        metric=wording.metric,
        verdict=wording.verdict,
    )
    draw = lazy.available("matplotlib")
    backends = report["backends"]
    return environment.get_template("report.html.jinja").render(
        report=report,
        passed=passed(report),
        gap=wording.gap_text(report),
        metric_name=wording.metric_name(report),
        views=[_view(name, entry, f"b{index}", draw=draw) for index, (name, entry) in enumerate(backends.items())],
        sizes=_sizes(report) if draw else None,
        commands=next_commands(report, directory),
        drawn=draw,
    )


def _view(name: str, entry: BackendReport, key: str, *, draw: bool) -> dict[str, Any]:
    layers = [layer for layer in entry.get("layers", []) if _finite(layer.get("sqnr_db"))]
    worst = sorted(range(len(layers)), key=lambda index: _decibels(layers[index]))[:_WORST_LAYERS]
    kinds = operations_by_kind(entry)
    samples = entry.get("latency_samples_ms", {})
    float_ms, engine_ms = _numbers(samples.get("float", [])), _numbers(samples.get("engine", []))
    view: dict[str, Any] = {
        "name": name,
        "entry": entry,
        "kinds": kinds,
        "worst": [(index + 1, layers[index]) for index in worst],
        "layer_count": len(layers),
        "figures": {},
    }
    if draw:
        view["figures"] = {
            "coverage": _figure(figures.coverage_svg, kinds, key=f"{key}c") if kinds else None,
            "layers": _figure(figures.layers_svg, [_decibels(x) for x in layers], worst, key=f"{key}l")
            if layers
            else None,
            "latency": _figure(figures.latency_svg, float_ms, engine_ms, key=f"{key}t")
            if float_ms or engine_ms
            else None,
        }
    return view


def operations_by_kind(entry: BackendReport) -> list[tuple[str, int, int]]:
    """Count (kind, int8, float) in the runtime's graph; without one, from the coverage. Rare kinds are put together."""
    int8: Counter[str] = Counter()
    rest: Counter[str] = Counter()
    coverage = entry.get("coverage")
    if graph := entry.get("graph"):
        for node in graph:
            (int8 if node["precision"].lower() in _INT8_WORDS else rest)[node["op"]] += 1
    elif coverage:
        int8["all int8 operations"] = coverage["int8"]
        rest.update(operation["op"] for operation in coverage["float"])
    ordered = [kind for kind, count in (int8 + rest).most_common() if count]
    rows = [(kind, int8[kind], rest[kind]) for kind in ordered]
    if len(rows) <= _KINDS_DRAWN:
        return rows
    head, tail = rows[: _KINDS_DRAWN - 1], rows[_KINDS_DRAWN - 1 :]
    return [*head, (f"{len(tail)} other kinds", sum(row[1] for row in tail), sum(row[2] for row in tail))]


def _sizes(report: Report) -> Any:
    known = [
        (name, sizes["float"], sizes["engine"])
        for name, entry in report["backends"].items()
        if (sizes := entry.get("size_bytes", {})) and "float" in sizes and "engine" in sizes
    ]
    return _figure(figures.sizes_svg, known, key="s") if known else None


def _figure(function: Callable[..., str], *data: Any, key: str) -> Any:
    from markupsafe import Markup

    # matplotlib has escaped the text of its labels.
    return Markup(function(*data, key))


def _plain_unless_markup(value: Any) -> Any:
    return value if hasattr(value, "__html__") else wording.plain(value)


def _decibels(layer: Layer) -> float:
    value = layer.get("sqnr_db")
    return math.inf if value is None else value


def _finite(value: Number) -> bool:
    return value is not None and math.isfinite(value)


def _numbers(values: Sequence[Number]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
