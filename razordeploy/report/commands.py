"""The commands that a reader of a report can paste next."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from razordeploy.report.schema import Report


def next_commands(report: Report, directory: Path) -> list[str]:
    """Return two or three shell commands: measure again, time, use; ``razordeploy doctor`` where no engine was made."""
    made = [name for name, entry in report["backends"].items() if "error" not in entry]
    if not made:
        return ["razordeploy doctor", *([report["command"]] if report.get("command") else [])]
    folder = shlex.quote(str(directory))
    code = f"import razordeploy as rd; print(rd.load_engine({json.dumps(str(directory / made[0]))}).benchmark(batch=1))"
    return [f"razordeploy evaluate {folder}", f"razordeploy benchmark {folder}", shlex.join(["python", "-c", code])]
