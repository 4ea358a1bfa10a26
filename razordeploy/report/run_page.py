"""The page of a pipeline: every model and engine side by side, what each stage bought, and the front of the best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from razordeploy.report import wording
from razordeploy.report.html import environment, source
from razordeploy.report.pareto import pareto_plot

HEADERS = ("stage", "what", "metric", "change", "params", "MACs", "size", "p50 ms", "speed-up", "made in")


def render_run(report: Mapping[str, Any]) -> str:
    """Return the page of a run's ``report.json``; one file, no network, no script."""
    from markupsafe import Markup

    view = run_view(report)
    return str(environment().get_template("run.html.jinja").render(view, style=Markup(source("style.css"))))


def run_view(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows, in words."""
    return {
        "passed": report["passed"],
        "model": report["model"],
        "created": wording.date(report["created"]),
        "sentence": sentence(report),
        "problems": [(s["name"], s["error"]) for s in report["stages"] if s["error"]],
        "headers": HEADERS,
        "rows": [(row, cells(row)) for row in report["rows"]],
        "plots": plots(report),
        "facts": _facts(report),
        "footer": f"razordeploy {report['versions'].get('razordeploy', '')}: {report['command']}",
    }


def sentence(report: Mapping[str, Any]) -> str:
    """The result in one sentence."""
    engines = [row for row in report["rows"] if row["backend"] is not None]
    models = [row for row in report["rows"] if row["backend"] is None and row["value"] is not None]
    if report["left"]:
        return f"{len(report['stages'])} stages done, left to do: {', '.join(report['left'])}"
    if not engines:
        return f"{len(report['stages'])} stages done, no engine was made"
    last = [row for row in engines if row["name"] == engines[-1]["name"]]
    best = max(last, key=lambda row: row["value"] if row["value"] is not None else float("-inf"))
    text = f"{best['name']} on {best['backend']}: {_metric(best)}"
    first = report["rows"][0]
    if first["backend"] is not None and first.get("float_value") is not None:
        # The pipeline begins with engines of a model that was there before.
        name, value, size = f"{first['name']}, float", first["float_value"], first.get("float_bytes")
    elif models:
        name, value, size = models[0]["name"], models[0]["value"], models[0]["size_bytes"]
    else:
        return text
    if best["value"] is not None:
        text += f", {_signed(best['value'] - value)} points against {name}"
        if size and best["size_bytes"]:
            text += f", {wording.size(best['size_bytes'])} after {wording.size(size)}"
    return text


def cells(row: Mapping[str, Any]) -> list[str]:
    """One row of the table, as ``HEADERS``."""
    speed = None if not row["p50_ms"] or not row["float_ms"] else row["float_ms"] / row["p50_ms"]
    return [
        str(row["name"]),
        f"{row['stage']}, {row['backend']}" if row["backend"] else str(row["stage"]),
        _metric(row),
        wording.MISSING if row["change"] is None else _signed(row["change"]),
        _count(row["params"]),
        _count(row["macs"]),
        wording.size(row["size_bytes"]),
        wording.significant(row["p50_ms"]),
        wording.ratio(speed),
        f"{row['seconds']:.1f} s",
    ]


def _signed(points: float) -> str:
    return f"{round(points, 2) + 0.0:+.2f}"  # no -0.00


def _metric(row: Mapping[str, Any]) -> str:
    return wording.MISSING if row["value"] is None else wording.with_unit(row["value"], str(row["metric"]))


def _count(value: float | None) -> str:
    if value is None:
        return wording.MISSING
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{wording.significant(value / scale)} {unit}"
    return f"{value:.0f}"


def plots(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each backend the metric of every engine against its latency, or its size where none was measured."""
    found = []
    backends = dict.fromkeys(row["backend"] for row in report["rows"] if row["backend"])
    for backend in backends:
        rows = [r for r in report["rows"] if r["backend"] == backend and r["value"] is not None]
        timed = bool(rows) and all(r["p50_ms"] is not None for r in rows)
        unit, key, float_key = ("ms", "p50_ms", "float_ms") if timed else ("kB", "size_bytes", "float_bytes")
        scale = 1.0 if timed else 1e3
        points: list[tuple[float, float]] = []
        names: list[str] = []
        seen: set[tuple[float, float]] = set()
        for row in rows:
            pairs = [
                (row.get(float_key), row.get("float_value"), f"{row['name']}, float"),
                (row[key], row["value"], row["name"]),
            ]
            for cost, value, name in pairs:
                if cost is None or value is None or (cost, value) in seen:
                    continue
                seen.add((cost, value))
                points.append((cost / scale, value))
                names.append(str(name))
        if len(points) > 1:
            metric = str(rows[0]["metric"])
            what = "latency, p50 in ms" if timed else "size in kB"
            found.append(
                {
                    "title": f"{metric} against {'latency' if timed else 'size'} on {backend}",
                    "plot": pareto_plot(points, list(enumerate(names))),
                    "quality": metric,
                    "unit": what,
                    "text": "; ".join(
                        f"{n}: {v:.2f} at {c:.4g} {unit}" for n, (c, v) in zip(names, points, strict=True)
                    ),
                }
            )
    return found


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    total = sum(stage["seconds"] for stage in report["stages"])
    slowest = max(report["stages"], key=lambda stage: stage["seconds"], default=None)
    facts = [("recipe", str(report["recipe"])), ("seed", str(report["seed"]))]
    facts.append(("stages", f"{len(report['stages'])} in {total:.1f} s"))
    if slowest is not None:
        facts.append(("longest", f"{slowest['name']}, {slowest['seconds']:.1f} s"))
    facts.append(("hashes of all files", str(report["manifest"])))
    facts.append(("processor", f"{report['machine']['cpu']}, {report['machine']['threads']} threads"))
    return facts
