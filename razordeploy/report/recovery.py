"""The recovery's part of the page: what each step bought and cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from razordeploy.report import wording
from razordeploy.report.schema import BackendReport, Recovery

View = tuple[str, str, list[dict[str, str]]]
"""Backend, outcome in one sentence, and a row a step."""


def recovery_views(backends: Mapping[str, BackendReport]) -> list[View]:
    """Every backend whose engine was to be recovered."""
    return [(name, outcome(e["recovery"]), _rows(e["recovery"])) for name, e in backends.items() if "recovery" in e]


def outcome(found: Recovery) -> str:
    """From where to where, by what, and whether that is enough."""
    target = wording.fixed(found.get("target"), 2)
    start, end = wording.fixed(found.get("start"), 2), wording.fixed(found.get("end"), 2)
    if not found.get("steps"):
        return f"The plain engine loses {start} points, within the limit of {target}: nothing was tried."
    by = ", ".join(found.get("algorithms", ())) or "no algorithm"
    kept_float = found.get("float", ())
    more = f" and {len(kept_float)} operations in float" if kept_float else ""
    verdict = "within" if found.get("met") else "still over"
    return f"From {start} to {end} points, {verdict} the limit of {target}, by {by}{more}."


def _rows(found: Recovery) -> list[dict[str, str]]:
    return [_row(step) for step in found.get("steps", ())]


def _row(step: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": step["name"],
        "loses": "" if step.get("drop") is None else f"{wording.fixed(step['drop'], 2)} pts",
        "bought": "" if step.get("gained") is None else f"{wording.fixed(step['gained'], 2)} pts",
        "took": "" if step.get("seconds") is None else f"{wording.fixed(step['seconds'], 1)} s",
        "kept": "yes" if step["kept"] else "no",
        "note": step.get("note", ""),
    }
