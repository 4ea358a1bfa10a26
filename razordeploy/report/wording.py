"""How a number or a name is written, on the terminal and on the page alike."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from razordeploy.report.schema import BackendReport, Number, Report, lookup, passed

MISSING = "-"
SAMPLES = "samples"
"""Stands among the metrics, and is none."""

_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")

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


def date(text: str) -> str:
    """Write an ISO 8601 time for people, in UTC; what is none is left as it is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    if moment.tzinfo is None:
        return moment.strftime("%Y-%m-%d %H:%M")
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def metric_name(report: Report) -> str:
    """Return the metric that the gap is about: top1, or the first one there is."""
    scores = [entry.get("metrics", {}).get("float", {}) for entry in report["backends"].values()]
    names = [name for score in scores for name in score if name != SAMPLES]
    return "top1" if "top1" in names or not names else names[0]


def metric(entry: BackendReport, point: str, name: str) -> Number:
    """Return a metric at one point (float, simulated, engine) or None."""
    found: Number = lookup(entry, "metrics", point, name)
    return found


def engine_word(report: Report) -> str:
    """Return what the engines may be called: ``int8``, or ``engine`` where nothing was to be quantized."""
    found = [c for entry in report["backends"].values() if (c := entry.get("coverage"))]
    return "engine" if found and all(c["planned"] == c["int8"] == 0 for c in found) else "int8"


def with_unit(value: Number, name: str) -> str:
    """Write a metric; the ones that are percentages by contract (top1, top5) with their sign."""
    text = fixed(value)
    return f"{text} %" if name in ("top1", "top5") and text != MISSING else text


def hardware(flags: Sequence[str]) -> str:
    """Say what a processor's vector instructions mean for int8 kernels."""
    fast = [flag for flag in flags if flag in _DOT_PRODUCTS]
    if fast:
        return f"yes ({', '.join(fast)}): int8 can multiply at up to four times the rate of float32"
    if flags:
        return "no VNNI: int8 gains less, and kernels that add products in 16 bits may saturate"
    return "not known"


def verdict(entry: BackendReport) -> str:
    """Return ``ERROR``, ``passed``, ``FAILED`` or ``no engine``: told apart without colour."""
    if "error" in entry:
        return "ERROR"
    if "missing" in entry and not entry.get("failures"):
        return "no engine"
    return "passed" if entry["passed"] else "FAILED"


def stated_problems(entry: BackendReport) -> list[str]:
    """What the entry itself says went wrong or is missing."""
    missing = [f"no engine was built: {entry['missing']}"] if "missing" in entry else []
    return [*([entry["error"]] if "error" in entry else []), *missing, *entry.get("failures", [])]


def rule_notes(entry: BackendReport) -> list[str]:
    """One sentence for each rule of the backend's own that makes the exported graph slower than it need be."""
    found: dict[tuple[str, str], list[str]] = {}
    for finding in entry.get("findings", ()):
        if finding["severity"] == "note":
            found.setdefault((finding["rule"], finding["message"]), []).append(finding["node"])
    return [
        f"slower than need be, by the rule '{rule}': {message} ({', '.join(nodes[:3])}{', ...' * (len(nodes) > 3)})"
        for (rule, message), nodes in found.items()
    ]


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
