"""What a pipeline has come to: report.json, report.html and the lines on the terminal."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from razordeploy.cli.stages.plan import Plan
from razordeploy.cli.stages.state import STATE, Done, State
from razordeploy.config.stages import ENGINE_STAGES
from razordeploy.environment import cpu_name, threads, versions
from razordeploy.report.run_page import HEADERS, cells, render_run, sentence
from razordeploy.report.write import HTML_NAME, JSON_NAME
from razordeploy.storage import atomic_write
from razordeploy.strict_json import json_text, jsonable

_SHOWN = (0, 2, 3, 4, 6, 7, 8, 9)
"""Columns that fit on a terminal; the page has all."""


def write_run_report(plan: Plan, state: State, folder: Path) -> int:
    """Write both files into the work dir, print the table; returns the worst exit code of the stages."""
    report = jsonable(run_report(plan, state), "report")
    atomic_write(folder / JSON_NAME, json_text(report))
    atomic_write(folder / HTML_NAME, render_run(report))
    _print(report, folder)
    return int(max((stage["exit_code"] for stage in report["stages"]), default=0))


def run_report(plan: Plan, state: State) -> dict[str, Any]:
    """The content of ``report.json``; ``backends`` are those of the last stage that made engines."""
    done = {s.config.name: state.done[s.config.name] for s in plan.steps if s.config.name in state.done}
    engines = [d for d in done.values() if d.stage in ENGINE_STAGES and d.figures.get("report")]
    last: Mapping[str, Any] = engines[-1].figures["report"] if engines else {}
    return {
        "kind": "run",
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": state.about.get("command"),
        "recipe": str(plan.recipe.path),
        "model": last.get("model", plan.recipe.model_name),
        "seed": plan.recipe.seed,
        "passed": bool(done) and all(d.exit_code == 0 and d.error is None for d in done.values()),
        "stages": [_stage(name, one) for name, one in done.items()],
        "rows": _rows(done),
        "left": [s.config.name for s in plan.steps if s.config.name not in done],
        "backends": last.get("backends", {}),
        "manifest": STATE,
        "machine": {"cpu": cpu_name(), "threads": threads()},
        "versions": versions(("openvino", "onnxruntime", "onnx", "mmengine")),
    }


def _stage(name: str, one: Done) -> dict[str, Any]:
    return {
        "name": name,
        "stage": one.stage,
        "source": one.source,
        "seconds": one.seconds,
        "exit_code": one.exit_code,
        "error": one.error,
        "artifacts": {folder: entry["id"] for folder, entry in one.artifacts.items()},
    }


def _rows(done: Mapping[str, Done]) -> list[dict[str, Any]]:
    """One row for each model and for each engine: what it is worth, what it costs, what it took to make."""
    rows: list[dict[str, Any]] = []
    by_stage: dict[str, dict[str, Any]] = {}
    for name, one in done.items():
        if one.error is not None:
            continue
        base = by_stage.get(one.source or "")
        if one.stage in ENGINE_STAGES:
            for backend, entry in one.figures.get("report", {}).get("backends", {}).items():
                rows.append(_engine(name, one, backend, entry))
            continue
        row = _model(name, one, base)
        rows.append(row)
        by_stage[name] = row
    return rows


def _model(name: str, one: Done, base: Mapping[str, Any] | None) -> dict[str, Any]:
    figures = one.figures
    metric, value = _first(figures.get("metrics", {}))
    row = {
        "name": name,
        "stage": one.stage,
        "backend": None,
        "metric": metric,
        "value": value,
        "params": figures.get("params"),
        "macs": figures.get("macs"),
        "size_bytes": figures.get("size_bytes"),
        "p50_ms": None,
        "float_ms": None,
        "seconds": one.seconds,
        "change": None,
        "passed": one.exit_code == 0,
    }
    if base is not None and value is not None and base["value"] is not None:
        row["change"] = value - base["value"]
    return row


def _engine(name: str, one: Done, backend: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    metrics = entry.get("metrics", {})
    metric, value = _first(metrics.get("engine", {}))
    gap = entry.get("gap", {}).get("float_to_engine")
    latency = entry.get("latency_ms", {})
    return {
        "name": name,
        "stage": one.stage,
        "backend": backend,
        "metric": metric,
        "value": value,
        "params": None,
        "macs": None,
        "size_bytes": entry.get("size_bytes", {}).get("engine"),
        "p50_ms": latency.get("engine", {}).get("p50"),
        "float_ms": latency.get("float", {}).get("p50"),
        "float_value": _first(metrics.get("float", {}))[1],
        "float_bytes": entry.get("size_bytes", {}).get("float"),
        "int8": entry.get("coverage", {}).get("int8"),
        "planned": entry.get("coverage", {}).get("planned"),
        "seconds": one.seconds,
        "change": None if gap is None else -gap,
        "passed": bool(entry.get("passed")),
    }


def _first(metrics: Mapping[str, Any]) -> tuple[str | None, float | None]:
    name = next((key for key in metrics if key != "samples"), None)
    return name, None if name is None else metrics[name]


def _print(report: Mapping[str, Any], folder: Path) -> None:
    console = Console()
    table = Table(box=box.SIMPLE_HEAD)
    for index in _SHOWN:
        table.add_column(HEADERS[index], justify="right" if index else "left", overflow="fold")
    for row in report["rows"]:
        name = f"{row['name']} {row['backend']}" if row["backend"] else row["name"]
        table.add_row(name, *(Text(cells(row)[index]) for index in _SHOWN[1:]))
    console.print(table)
    for stage in report["stages"]:
        if stage["error"]:
            console.print(Text(f"{stage['name']}: {stage['error']}", style="red"), soft_wrap=True)
    word, style = ("PASSED", "bold green") if report["passed"] else ("FAILED", "bold red")
    if report["left"] and report["passed"]:
        word, style = "SO FAR", "bold"
    console.print(Text(f"{word}: {sentence(report)} | report: {folder / HTML_NAME}", style=style), soft_wrap=True)
