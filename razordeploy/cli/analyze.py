"""``razordeploy analyze``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from razordeploy.analysis import run_analysis
from razordeploy.cli.asked import Asked
from razordeploy.cli.screen import ScreenProgress
from razordeploy.cli.signals import Signalled, stop_on_signals
from razordeploy.job import PTQJob
from razordeploy.quantization.calibrate import Interrupted
from razordeploy.report.analysis import keep_float, keep_line, rows, write_analysis
from razordeploy.workdir import WorkDir

FOLDER = "analysis"


def run(
    recipe_path: str,
    *,
    backends: Sequence[str] | None,
    checkpoint: Path | None,
    work_dir: Path | None,
    overrides: Mapping[str, str],
    command: str,
    samples: int,
    keep: int,
    trust: bool,
    data: Path | None = None,
) -> int:
    """Analyze, write and print; return the exit code: 0, 3 (a backend is missing) or 128 + signal."""
    asked = Asked.open(
        recipe_path,
        backends=backends,
        checkpoint=checkpoint,
        work_dir=work_dir,
        overrides=overrides,
        trust=trust,
        data=data,
        switch=False,
    )
    folder = asked.work_dir
    with WorkDir(folder) as work, stop_on_signals() as stop, ScreenProgress() as screen:
        job = asked.as_job(PTQJob, work.path, progress=screen.progress(stop))
        try:
            found, errors = run_analysis(job, samples=samples)
        except (Interrupted, Signalled) as end:
            screen.close()
            number = end.number if isinstance(end, Signalled) else stop.number
            what = f"interrupted: {end}" if isinstance(end, Interrupted) else "interrupted"
            print(f"{what}; resume with: {command}", file=sys.stderr)
            return 128 + number
        for analysis in found.values():
            write_analysis(asdict(analysis), work.path / FOLDER, keep)
    for analysis in found.values():
        _print(asdict(analysis), folder, keep)
    for name, failure in errors.items():
        print(f"error: {name}: {failure}", file=sys.stderr)
    return max((e.exit_code for e in errors.values()), default=0)


def _print(analysis: Mapping[str, Any], folder: Path, keep: int) -> None:
    console = Console()
    table = Table(box=box.SIMPLE_HEAD, title=f"{analysis['backend']}: the most harmful first, dB of the outputs")
    for header, right in (("#", True), ("module", False), ("op", False), *((h, True) for h in _HEADERS)):
        table.add_column(header, justify="right" if right else "left", overflow="fold")
    for row in rows(analysis["layers"]):
        figures = [row[key] for key in _KEYS]
        table.add_row(str(row["rank"]), escape(row["module"] or row["node"]), row["op"], *map(_figure, figures))
    console.print(table)
    whole = analysis["whole"]
    drop = "" if whole["drop"] is None else f", {analysis['metric']} {_figure(whole['drop'])} points less"
    console.print(f"all quantized: {_figure(whole['sqnr_db'])} dB{drop} on {analysis['samples']} samples", markup=False)
    modules = keep_float(analysis["layers"], keep)
    if modules:
        console.print(f"keep these {len(modules)} in float:  {keep_line(modules)}", markup=False, soft_wrap=True)
    page = folder / FOLDER / f"{analysis['backend']}.html"
    console.print(f"wrote {page} (and .json, .csv, .png)", markup=False, soft_wrap=True)


_HEADERS = ("alone", "drop", "weight", "inputs", "up to it")
_KEYS = ("isolated_sqnr_db", "isolated_drop", "weights_sqnr_db", "activations_sqnr_db", "cumulative_sqnr_db")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
