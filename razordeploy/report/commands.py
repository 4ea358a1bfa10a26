"""The commands that a reader of a report can paste next."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from razordeploy.report.schema import Report


@dataclass(frozen=True, kw_only=True)
class Command:
    """Something to paste."""

    title: str
    """What it does."""
    text: str
    """Of one or several lines."""
    language: str = "shell"
    """``shell`` or ``python``."""


def next_commands(report: Report, directory: Path) -> list[str]:
    """Return two or three shell commands: measure again, time, use; ``razordeploy doctor`` where no engine was made."""
    made = _made(report)
    if not made and (builds := _builds(report)):
        return list(builds.values())
    if not made:
        return ["razordeploy doctor", *([report["command"]] if report.get("command") else [])]
    engine = f"rd.load_engine({_quoted(directory / made[0])})"
    code = f"import razordeploy as rd; print({engine}.benchmark(batch={_batch(report)}))"
    return [
        *_builds(report).values(),
        *(c.text for c in measuring_commands(report, directory)),
        shlex.join(["python", "-c", code]),
    ]


def measuring_commands(report: Report, directory: Path) -> list[Command]:
    """Return the commands that measure the engines again; a run without recipe names no data to evaluate on."""
    if not _made(report):
        return []
    folder = shlex.quote(str(directory))
    batch = f" --batch {_batch(report)}" if _batch(report) != 1 else ""
    found = [Command(title="Measure latency again", text=f"razordeploy benchmark {folder}{batch}")]
    if report.get("recipe"):
        found.insert(0, Command(title="Measure accuracy again", text=f"razordeploy evaluate {folder}"))
    return found


def page_commands(report: Report, directory: Path) -> list[Command]:
    """Return everything that the page offers: use the engines, run it again, measure again."""
    found = []
    for name in _made(report):
        code = [
            "import razordeploy as rd",
            f"engine = rd.load_engine({_quoted(directory / name)})",
            f"outputs = engine(*engine.random_inputs(batch={_batch(report)}))",
        ]
        found.append(Command(title=f"Use the {name} engine", text="\n".join(code), language="python"))
        if usage := report["backends"][name].get("usage"):
            found.append(Command(title=f"Use the {name} engine without razordeploy", text=usage, language="python"))
    for name, line in _builds(report).items():
        found.append(Command(title=f"Build the {name} engine on a machine that has it", text=line))
    if command := report.get("command"):
        found.append(Command(title="Do this run again", text=command))
    found += measuring_commands(report, directory)
    return found or [Command(title="See what is missing", text="razordeploy doctor")]


def _made(report: Report) -> list[str]:
    return [name for name, entry in report["backends"].items() if not {"error", "missing"} & set(entry)]


def _builds(report: Report) -> dict[str, str]:
    """Backend to the command that builds its engine elsewhere."""
    return {name: entry["build"] for name, entry in report["backends"].items() if "build" in entry}


def _batch(report: Report) -> int:
    """The batch size that the engines were made for; 1 where they take any."""
    inputs = report.get("inputs")
    return (inputs[0]["shape"][0] if inputs and inputs[0]["shape"] else None) or 1


def _quoted(path: Path) -> str:
    """A Python literal."""
    text = str(path)
    return f'"{text}"' if text.isprintable() and not set(text) & {'"', "\\"} else repr(text)
