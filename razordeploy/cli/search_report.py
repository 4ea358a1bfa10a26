"""What a search says of itself: report.json, report.html and the lines on the terminal."""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from razordeploy.cli.search_result import SUBNET, WEIGHTS
from razordeploy.compress.nas.search.scored import pareto_front
from razordeploy.config.search import LATENCY
from razordeploy.environment import cpu_name, threads, versions
from razordeploy.report.search_page import render_search, sentence
from razordeploy.report.write import HTML_NAME, JSON_NAME
from razordeploy.storage import atomic_write
from razordeploy.strict_json import json_text, jsonable

if TYPE_CHECKING:
    from razordeploy.cli.search import Search


def write_search_report(found: Search) -> None:
    """Write both files into the work dir."""
    report = jsonable(search_report(found), "report")
    atomic_write(found.folder / JSON_NAME, json_text(report))
    atomic_write(found.folder / HTML_NAME, render_search(report))


def search_report(found: Search) -> dict[str, Any]:
    """The content of ``report.json``."""
    chosen, scored = found.chosen, found.outcome.scored
    axes = [*(f"{LATENCY}{name}" for name in found.tables), "macs"]
    number = {one.key: index for index, one in enumerate(scored)}
    space = found.scorer.supernet.space
    return {
        "kind": "search",
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": found.command,
        "recipe": str(found.recipe.path),
        "model": found.recipe.model_name,
        "seed": found.recipe.seed,
        "passed": not chosen.failures,
        "failures": chosen.failures,
        "warnings": found.warnings,
        "search": {
            "type": found.config.type,
            "options": found.config.options,
            "constraints": {name: list(span) for name, span in found.limits.ranges.items()},
            "score": found.scorer.score,
            "recalibrate_samples": found.scorer.calibration_samples,
        },
        "space": {"size": space.size, "groups": {name: list(choices) for name, choices in space.groups.items()}},
        "evaluated": len(scored),
        "failed": sum(one.score is None for one in scored),
        "from_journal": found.evaluator.from_journal,
        "checked": found.bounded.checked,
        "seconds": found.seconds,
        "chosen": {
            "number": number[chosen.scored.key],
            "subnet": chosen.scored.subnet,
            "score": chosen.scored.score,
            "costs": dict(chosen.scored.costs),
            "measured_ms": chosen.measured_ms,
            "exported": chosen.exported,
            "files": {"subnet": SUBNET, "weights": WEIGHTS},
        },
        "targets": found.targets,
        "pareto": {
            "costs": axes,
            "front": {axis: [number[p.key] for p in pareto_front(scored, axis)] for axis in axes},
        },
        "latency": {
            backend: {"samples": len(table.measured), "mape": table.mape, "rest_ms": table.rest_ms}
            for backend, table in found.tables.items()
        },
        "predictor": found.outcome.predictor,
        "candidates": [
            {
                "number": index,
                "subnet": one.subnet,
                "score": one.score,
                "costs": dict(one.costs),
                "seconds": one.seconds,
                **({"error": one.error} if one.error else {}),
            }
            for index, one in enumerate(scored)
        ],
        "commands": _commands(found),
        "machine": {"cpu": cpu_name(), "threads": threads()},
        "versions": versions(),
    }


def _commands(found: Search) -> list[list[str]]:
    recipe, folder = str(found.recipe.path), found.folder
    export = ["razordeploy", "export", recipe, "--subnet", str(folder / SUBNET)]
    export += ["--checkpoint", str(folder / WEIGHTS), "--slice-weight", "--out", str(folder / "sliced")]
    return [
        ["Write the subnet as a model of its own", shlex.join(export)],
        ["Quantize it", shlex.join(["razordeploy", "ptq", str(folder / "sliced")])],
    ]


def print_search(found: Search) -> None:
    """Print the result, what went wrong, and what to type next."""
    console = Console()
    report = jsonable(search_report(found), "report")

    def line(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    for warning in found.warnings:
        line(f"warning: {warning}", "yellow")
    for backend, table in found.tables.items():
        line(f"latency on {backend}: {len(table.measured)} int8 engines measured, prediction off by {table.mape:.1f} %")
    if report["failed"]:
        line(f"{report['failed']} of {report['evaluated']} candidates failed; see {found.folder / JSON_NAME}", "yellow")
    for problem in found.chosen.failures:
        line(problem, "red")
    line(f"wrote {_written(found.folder)}")
    for _, command in report["commands"][:1]:
        line(f"next: {command}", "cyan")
    word, style = ("FAILED", "bold red") if found.chosen.failures else ("PASSED", "bold green")
    line(f"{word}: {sentence(report)}; {found.folder / HTML_NAME}", style)


def _written(folder: Path) -> str:
    return ", ".join(str(folder / name) for name in (SUBNET, WEIGHTS))
