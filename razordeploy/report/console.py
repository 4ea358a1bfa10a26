"""The summary on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from razordeploy.report import wording
from razordeploy.report.commands import next_commands
from razordeploy.report.picture import float_reasons
from razordeploy.report.schema import BackendReport, Report, passed
from razordeploy.report.wording import rule_notes, stated_problems
from razordeploy.report.write import HTML_NAME

_STYLES = {"passed": "green", "FAILED": "bold red", "ERROR": "bold red", "no engine": "bold red"}


def print_report(report: Report, directory: Path, *, seconds: float, console: Console | None = None) -> None:
    """Print the table, what went wrong, what to type next and, last, the line that scripts look for."""
    console = console or Console()
    console.print(_fitted(report_table(report, console.encoding), console))
    for name, entry in report["backends"].items():
        for problem in stated_problems(entry):
            _line(console, f"{name}: {problem}", "red")
        for note in rule_notes(entry):
            _line(console, f"{name}: {note}", "yellow")
        for reason in float_reasons(entry):
            if reason.planned:
                _line(
                    console,
                    f"{name}: {reason.count} operations run in float, not as planned ({reason.kinds}): {reason.text}",
                    "yellow",
                )
    for warning in report.get("warnings", []):
        _line(console, f"warning: {warning}", "yellow")
    console.print()
    for command in next_commands(report, directory):
        _line(console, f"  {command}", "cyan")
    line = wording.verdict_line(report, directory / HTML_NAME, seconds)
    _line(console, line, "bold green" if passed(report) else "bold red")


def _fitted(table: Table, console: Console) -> Table:
    """Take blanks away until the table fits: a name in two lines would read worse than narrow columns."""

    def too_wide() -> bool:
        return Measurement.get(console, console.options.update(max_width=10_000), table).maximum > console.width

    if too_wide():
        table.show_edge = False
    if too_wide():
        table.padding = (0, 0)
    return table


def report_table(report: Report, encoding: str = "utf-8") -> Table:
    """Return one row a backend; ten narrow columns that fit into 80. Names are written as ``encoding`` can."""
    name = wording.metric_name(report)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("backend", overflow="fold", max_width=13)
    for title in ("float", "simul.", "engine"):
        table.add_column(Text(f"{title}\n{_encodable(name[:8], encoding)}"), justify="right", no_wrap=True)
    for title in ("gap\npts", "int8\nops", "p50\nms", "speed\nup", "size"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for backend, entry in report["backends"].items():
        word = wording.verdict(entry)
        table.add_row(Text(_encodable(backend, encoding)), *_cells(entry, name), Text(word, style=_STYLES[word]))
    return table


def _cells(entry: BackendReport, name: str) -> list[str | Text]:
    coverage = entry.get("coverage")
    return [
        *(wording.fixed(wording.metric(entry, point, name)) for point in ("float", "simulated", "engine")),
        wording.fixed(entry.get("gap", {}).get("float_to_engine")),
        f"{coverage['int8']}/{coverage['planned']}" if coverage else wording.MISSING,
        wording.significant(entry.get("latency_ms", {}).get("engine", {}).get("p50")),
        _speedup(entry),
        wording.size(entry.get("size_bytes", {}).get("engine")),
    ]


def _speedup(entry: BackendReport) -> Text:
    speedup = entry.get("speedup")
    return Text(wording.ratio(speedup), style="yellow" if speedup is not None and round(speedup, 2) < 1 else "")


def _line(console: Console, text: str, style: str) -> None:
    # As text, not markup, and never folded: a path or a command is copied whole.
    console.print(Text(_encodable(text, console.encoding), style=style), soft_wrap=True)


def _encodable(text: str, encoding: str) -> str:
    return wording.plain(text).encode(encoding, "replace").decode(encoding)
