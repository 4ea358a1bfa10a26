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
    of_outputs = found.get("of") == "outputs"
    target, start, end = (_loss(found.get(key), of_outputs) for key in ("target", "start", "end"))  # type: ignore[arg-type]
    if not found.get("steps"):
        if of_outputs:
            return f"The plain engine's outputs keep a cosine of {start}, {target} is enough: nothing was tried."
        return f"The plain engine loses {start} points, within the limit of {target}: nothing was tried."
    by = ", ".join(found.get("algorithms", ())) or "no algorithm"
    kept_float = found.get("float", ())
    more = f" and {len(kept_float)} operations in float" if kept_float else ""
    if of_outputs:
        verdict = "at least" if found.get("met") else "still under"
        return f"Cosine to the float model's outputs from {start} to {end}, {verdict} {target}, by {by}{more}."
    verdict = "within" if found.get("met") else "still over"
    return f"From {start} to {end} points, {verdict} the limit of {target}, by {by}{more}."


def _rows(found: Recovery) -> list[dict[str, str]]:
    return [_row(step, found.get("of") == "outputs") for step in found.get("steps", ())]


def _loss(value: float | None, of_outputs: bool) -> str:
    if of_outputs and value is not None:
        return wording.fixed(1 - value / 100, 4)
    return wording.fixed(value, 2)


def _row(step: Mapping[str, Any], of_outputs: bool) -> dict[str, str]:
    unit = "" if of_outputs else " pts"
    gained = step.get("gained")
    bought = wording.fixed(gained / 100, 4) if of_outputs and gained is not None else wording.fixed(gained, 2)
    return {
        "name": step["name"],
        "loses": "" if step.get("drop") is None else f"{_loss(step['drop'], of_outputs)}{unit}",
        "bought": "" if gained is None else f"{bought}{unit}",
        "took": "" if step.get("seconds") is None else f"{wording.fixed(step['seconds'], 1)} s",
        "kept": "yes" if step["kept"] else "no",
        "note": step.get("note", ""),
    }
