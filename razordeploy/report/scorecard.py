"""The table at the head of the page: one column a backend, one row a quantity, each with a small drawing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from razordeploy.report import wording
from razordeploy.report.plots import share
from razordeploy.report.schema import BackendReport, Number, Report, lookup

NOT_MEASURED = "not measured"
_BOTH = ("float", "engine")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of ``width`` percent; ``kind`` is int8 or float."""

    kind: str
    width: float


@dataclass(frozen=True, kw_only=True)
class Bullet:
    """A gap on a scale of points; all places in percent."""

    zero: float
    limit: float
    dot: float
    held: bool


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one backend has to say of one quantity."""

    text: str
    note: str = ""
    tone: str = ""
    """ok, bad, or nothing."""
    bars: tuple[Bar, ...] = ()
    bullet: Bullet | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One quantity."""

    label: str
    entries: tuple[Entry, ...]


def scorecard(report: Report) -> list[Row]:
    """Compare the backends of ``report``; bars of one row share a scale."""
    name = wording.metric_name(report)
    backends = report["backends"]
    slowest = _largest(backends, lambda e: [lookup(e, "latency_ms", p, "p50") for p in _BOTH])
    heaviest = _largest(backends, lambda e: [lookup(e, "size_bytes", p) for p in _BOTH])
    span = _gap_scale(backends)
    rows: list[tuple[str, Callable[[BackendReport], Entry]]] = [
        ("verdict", _verdict),
        (f"{name}, {wording.engine_word(report)}", lambda e: _metric(e, name)),
        ("accuracy lost", lambda e: _gap(e, span)),
        ("engine against simulation", _parity),
        ("int8 operations", _coverage),
        ("speed", lambda e: _speed(e, slowest)),
        ("size", lambda e: _size(e, heaviest)),
    ]
    return [
        Row(label=label, entries=tuple(Entry(text=wording.MISSING) if "error" in e and make is not _verdict else make(e)
                                       for e in backends.values()))
        for label, make in rows
    ]  # fmt: skip


def _largest(backends: Mapping[str, BackendReport], values: Callable[[BackendReport], list[Number]]) -> float:
    return max((v for entry in backends.values() for v in values(entry) if v is not None), default=0.0)


def _missing(note: str = NOT_MEASURED) -> Entry:
    return Entry(text=wording.MISSING, note=note)


def _verdict(entry: BackendReport) -> Entry:
    word = wording.verdict(entry)
    return Entry(text=word, tone="ok" if word == "passed" else "bad")


def _metric(entry: BackendReport, name: str) -> Entry:
    values = {point: wording.metric(entry, point, name) for point in ("float", "simulated", "engine")}
    if all(found is None for found in values.values()):
        return _missing()
    others = [f"{point} {wording.fixed(values[point])}" for point in ("float", "simulated")]
    return Entry(text=wording.with_unit(values["engine"], name), note=", ".join(others))


def _gap_scale(backends: Mapping[str, BackendReport]) -> tuple[float, float]:
    """Range of points that holds 0, every gap and every limit, with some room on both sides."""
    gaps = [gap for e in backends.values() if (gap := lookup(e, "gap", "float_to_engine")) is not None]
    limits = [limit for e in backends.values() if (limit := lookup(e, "limits", "max_drop")) is not None]
    low, high = min([0.0, *gaps]), max([0.0, *gaps, *limits])
    room = 0.2 * (high - low) or 1.0
    return low - room, high + room


def _gap(entry: BackendReport, span: tuple[float, float]) -> Entry:
    gap, limit = lookup(entry, "gap", "float_to_engine"), lookup(entry, "limits", "max_drop")
    if gap is None:
        return _missing()
    text = f"{wording.fixed(gap)} points"
    gain = ["a gain"] if round(gap, 2) < 0 else []
    if limit is None:
        return Entry(text=text, note=", ".join([*gain, "no limit"]))
    low, high = span
    zero, end, dot = (share(place - low, high - low) or 0.0 for place in (0.0, limit, gap))
    held = gap <= limit
    bullet = Bullet(zero=zero, limit=end, dot=dot, held=held)
    return Entry(text=text, note=", ".join([*gain, f"limit {limit:g}"]), tone="" if held else "bad", bullet=bullet)


def _parity(entry: BackendReport) -> Entry:
    largest, steps = lookup(entry, "parity", "max_abs"), lookup(entry, "parity", "steps")
    if largest is None:
        return _missing()
    if largest == 0:
        return Entry(text="identical", note="every output, bit for bit")
    note = f"largest difference {wording.significant(largest)}"
    return Entry(text="-" if steps is None else f"{wording.significant(steps)} steps", note=note)


def _coverage(entry: BackendReport) -> Entry:
    coverage = entry.get("coverage")
    if not coverage:
        return _missing()
    if any(op["state"] == "simulated" for op in entry.get("ops", [])):
        return Entry(text="none", note=f"{coverage['planned']} simulated, no engine")
    if coverage["planned"] == coverage["int8"] == 0:
        return Entry(text="none", note="none planned")
    width = share(coverage["int8"], coverage["planned"])
    bars = () if width is None else (Bar(kind="part", width=width),)
    return Entry(text=f"{coverage['int8']} of {coverage['planned']}", note="planned", bars=bars)


def _speed(entry: BackendReport, slowest: float) -> Entry:
    reference, engine = (lookup(entry, "latency_ms", point, "p50") for point in _BOTH)
    if engine is None:
        return _missing()
    bars = _pair(reference, engine, slowest)
    if reference is None:
        return Entry(text=f"{wording.significant(engine)} ms", note="p50, float not timed", bars=bars)
    speedup = entry.get("speedup")
    note = f"{wording.significant(engine)} ms, float {wording.significant(reference)}"
    slower = speedup is not None and round(speedup, 2) < 1
    if slower:
        note = f"slower: {note}"
    tone = "bad" if slower else ""
    return Entry(text=wording.ratio(speedup), note=note, tone=tone, bars=bars)


def _size(entry: BackendReport, heaviest: float) -> Entry:
    reference, engine = (lookup(entry, "size_bytes", point) for point in _BOTH)
    if engine is None:
        return _missing()
    note = f"float {wording.size(reference)}" if reference is not None else ""
    return Entry(text=wording.size(engine), note=note, bars=_pair(reference, engine, heaviest))


def _pair(reference: Number, engine: Number, whole: float) -> tuple[Bar, ...]:
    found = (("float", share(reference, whole)), ("int8", share(engine, whole)))
    return tuple(Bar(kind=kind, width=width) for kind, width in found if width is not None)
