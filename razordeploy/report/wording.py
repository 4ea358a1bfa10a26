"""How a number or a name is written, on the terminal and on the page alike."""

from __future__ import annotations

import math
import re
from pathlib import Path

from razordeploy.report.schema import BackendReport, Number, Report, passed

MISSING = "-"

# C0, DEL, C1, zero-width and direction marks, lone surrogates: they move the cursor or hide text.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")


def plain(text: object) -> str:
    """Return ``text`` on one line, without characters that act on a terminal or hide what is written."""
    # Runs of blanks stay: the text may be a path that is pasted into a shell.
    return _UNSAFE.sub("\ufffd", re.sub("[\t\n\r]", " ", str(text)))


def fixed(value: Number, digits: int = 2) -> str:
    """Write a number with a fixed count of decimals; a missing one as a dash."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def significant(value: Number) -> str:
    """Write a number with three significant digits and no exponent where it can be helped."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}"
    # The exponent after rounding: 9.999 is 10.0, not 10.00.
    exponent = int(f"{value:.2e}".partition("e")[2])
    return f"{value:.{max(0, 2 - exponent)}f}"


def size(value_bytes: Number) -> str:
    """Write a size in the unit that leaves at most three digits before the point."""
    if value_bytes is None:
        return MISSING
    value = float(value_bytes)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{significant(value)} {unit}"
        value /= 1000
    return f"{significant(value)} GB"


def ratio(value: Number) -> str:
    """Write a speed-up: 1.85x."""
    return MISSING if value is None else f"{fixed(value)}x"


def metric_name(report: Report) -> str:
    """Return the metric that the gap is about: top1, or the first one there is."""
    names = [name for entry in report["backends"].values() for name in entry.get("metrics", {}).get("float", {})]
    return "top1" if "top1" in names or not names else names[0]


def metric(entry: BackendReport, point: str, name: str) -> Number:
    """Return a metric at one point (float, simulated, engine) or None."""
    values: dict[str, Number] = entry.get("metrics", {}).get(point, {})  # type: ignore[assignment]
    return values.get(name)


def verdict(entry: BackendReport) -> str:
    """Return ``error``, ``passed`` or ``FAILED``: told apart without colour."""
    if "error" in entry:
        return "ERROR"
    return "passed" if entry["passed"] else "FAILED"


def gap_text(report: Report) -> str:
    """Say the largest float-to-engine gap and its limit: ``gap 0.12 pts (limit 1.0)``."""
    known = [
        (gap, entry.get("limits", {}).get("max_drop"))
        for entry in report["backends"].values()
        if (gap := entry.get("gap", {}).get("float_to_engine")) is not None
    ]
    if not known:
        return "gap not measured"
    gap, limit = max(known, key=lambda pair: pair[0])
    return f"gap {fixed(gap)} pts ({'no limit' if limit is None else f'limit {limit}'})"


def verdict_line(report: Report, html: Path, seconds: float) -> str:
    """Return the line a script looks for: ``PASSED gap 0.12 pts (limit 1.0) | 41.2s | report: .../report.html``."""
    word = "PASSED" if passed(report) else "FAILED"
    return f"{word} {gap_text(report)} | {seconds:.1f}s | report: {plain(html)}"
