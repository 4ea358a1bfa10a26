"""report.json and report.html on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from razordeploy.errors import UsageError
from razordeploy.report.schema import SCHEMA_VERSION, Report, check_report
from razordeploy.storage import atomic_write, storage_errors
from razordeploy.strict_json import json_text, jsonable

JSON_NAME = "report.json"
HTML_NAME = "report.html"


def write_report(report: Report, directory: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Check ``report`` and write both files into ``directory``; return the paths of the JSON and of the page.

    The JSON is written first: a page that cannot be drawn does not cost the numbers.

    Raises:
        UsageError: a field is unknown, missing or of the wrong type.
        StorageError: disk full, no permission.
    """
    from razordeploy.report.html import render_html

    folder = Path(directory)
    clean = cast(Report, jsonable(report, "report"))
    check_report(clean)
    atomic_write(folder / JSON_NAME, json_text(clean))
    atomic_write(folder / HTML_NAME, render_html(clean, folder))
    return folder / JSON_NAME, folder / HTML_NAME


def remove_report(directory: str | os.PathLike[str]) -> None:
    """Remove both files from ``directory``, where they are; the JSON goes first.

    Raises:
        StorageError: no permission.
    """
    for name in (JSON_NAME, HTML_NAME):
        file = Path(directory) / name
        with storage_errors(file):
            file.unlink(missing_ok=True)


def read_report(path: str | os.PathLike[str]) -> Report:
    """Read a report from its file or the folder it is in.

    Raises:
        UsageError: nothing there, not JSON, or of another schema version.
    """
    given = Path(path)
    file = given / JSON_NAME if given.is_dir() else given
    try:
        report: Any = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"expected a report at {file}, found nothing", hint="give the work dir of a run") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read the report {file}: {error}") from error
    found = report.get("schema_version") if isinstance(report, dict) else None
    if found != SCHEMA_VERSION:
        raise UsageError(f"{file} has schema_version {found}, expected {SCHEMA_VERSION}", hint="run it again")
    check_report(report)
    return cast(Report, report)
