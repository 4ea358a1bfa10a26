"""What ``ptq`` and ``convert`` share: the work dir, signals, the report and the exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from razordeploy.api import build_report
from razordeploy.backends.registry import BUILT_IN, check_names
from razordeploy.cli.screen import ScreenProgress
from razordeploy.cli.signals import Signalled, stop_on_signals
from razordeploy.errors import UsageError
from razordeploy.job import Progress, PTQResult
from razordeploy.quantization.calibrate import Interrupted
from razordeploy.report.console import print_report
from razordeploy.report.write import remove_report, write_report
from razordeploy.workdir import WorkDir


def checked_backends(names: Sequence[str]) -> list[str]:
    """The names, each once.

    Raises:
        UsageError: none, or one that no backend has.
    """
    found = list(dict.fromkeys(names))
    if not found:
        raise UsageError("no backend was asked for", hint=f"--backend {','.join(BUILT_IN[:2])}")
    check_names(found)
    return found


def deploy(
    run: Callable[[Path, Progress, Callable[[], None]], PTQResult],
    folder: Path,
    names: Sequence[str],
    *,
    command: str,
    report: Mapping[str, Any],
) -> int:
    """Run in ``folder``, write and print the report, return the exit code.

    Args:
        run: takes the folder, the progress to tell and what to call before an engine is replaced.
        folder: the work dir.
        names: backends, in the report's order.
        command: what the user typed, with which an interrupted run is resumed.
        report: the report's other fields.
    """
    start = time.perf_counter()
    with WorkDir(folder) as work, stop_on_signals() as stop, ScreenProgress() as screen:
        try:
            result = run(work.path, screen.progress(stop), lambda: remove_report(work.path))
        except (Interrupted, Signalled) as end:
            screen.close()
            number = end.number if isinstance(end, Signalled) else stop.number
            what = f"interrupted: {end}" if isinstance(end, Interrupted) else "interrupted"
            print(f"{what}; resume with: {command}", file=sys.stderr)
            return 128 + number
        made = build_report(result, names, command=command, **report)
        write_report(made, work.path)
    print_report(made, folder, seconds=time.perf_counter() - start)
    for name, failure in result.errors.items():
        print(f"error: {name}: {failure}", file=sys.stderr)
    for name, entry in result.backends.items():
        if "missing" in entry:
            print(f"error: {name}: no engine was built: {entry['missing']}", file=sys.stderr)
    return _exit_code(result.backends)


def _exit_code(entries: Mapping[str, Mapping[str, object]]) -> int:
    """The worst of all backends: a missing one counts before a failed check."""
    codes = [int(str(e.get("exit_code", 0 if e["passed"] else 1))) for e in entries.values()]
    return max(codes, default=0)
