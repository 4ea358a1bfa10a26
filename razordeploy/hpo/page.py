"""The study's page: one file, no network, no script; history, parallel coordinates, and every trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from razordeploy.hpo.records import StudyRecord, TrialRecord
from razordeploy.report.axis import Axis, axis, log_axis
from razordeploy.report.wording import plain, significant
from razordeploy.storage import atomic_write

PAGE = "study.html"
_SPREAD = 50.0
"""Ratio of the largest to the smallest positive number from which on an axis is logarithmic."""
_TOP_SHARE = 0.1
_MOST_LINES = 1000
_TICKS = 5


def write_page(study: StudyRecord) -> Path:
    """Write ``study.html`` into the study's folder."""
    return atomic_write(study.folder / PAGE, render_page(study))


def render_page(study: StudyRecord) -> str:
    """The page as text; every name on it is escaped."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("razordeploy.hpo"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if hasattr(value, "__html__") else plain(value),
    )
    environment.filters["number"] = _shown
    style = resources.files("razordeploy.report").joinpath("templates", "style.css").read_text(encoding="utf-8")
    columns = list(dict.fromkeys(key for trial in study.trials for key in trial.params))
    return environment.get_template("study.html.jinja").render(
        study=study,
        style=Markup(style),
        columns=columns,
        best=[trial.number for trial in study.best],
        histories=[_history(study, reward) for reward in study.rewards],
        parallel=_parallel(study, columns),
        trade=_trade(study),
    )


def _shown(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else str(value)
    return str(value) if isinstance(value, int) else significant(value)


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Paths in a box of 1000 by 1000, and its axes."""

    title: str
    dots: str
    line: str = ""
    other: str = ""
    """Dots of the trials that the line does not join."""
    x: Axis
    y: Axis
    x_title: str = ""


def _history(study: StudyRecord, reward: str) -> Plot | None:
    """Every value by trial, and the best so far."""
    found = [trial for trial in study.complete if math.isfinite(trial.values[reward])]
    if not found:
        return None
    y = _axis([trial.values[reward] for trial in found])
    x = axis(0, max(1, len(study.trials) - 1), whole=False)
    better = max if study.rewards[reward] == "maximise" else min
    line, best = "", None
    for trial in found:
        value = trial.values[reward]
        left = 10 * x.percent(trial.number)
        best = value if best is None else better(best, value)
        top = 1000 - 10 * y.percent(best)
        line += f"M{left:.0f} {top:.0f}" if not line else f"H{left:.0f}V{top:.0f}"
    dots = _dots([(x.percent(t.number), y.percent(t.values[reward])) for t in found])
    mode = "more is better" if better is max else "less is better"
    return Plot(title=f"{reward} ({mode})", dots=dots, line=f"{line}H1000", x=x, y=y, x_title="trial")


def _trade(study: StudyRecord) -> Plot | None:
    """The first two rewards against each other, with the front joined."""
    if len(study.rewards) < 2 or not study.complete:
        return None
    first, second = list(study.rewards)[:2]
    x = _axis([trial.values[first] for trial in study.complete])
    y = _axis([trial.values[second] for trial in study.complete])

    def place(trial: TrialRecord) -> tuple[float, float]:
        return x.percent(trial.values[first]), y.percent(trial.values[second])

    best = sorted(place(trial) for trial in study.best)
    line = "M" + "L".join(f"{10 * a:.0f} {1000 - 10 * b:.0f}" for a, b in best)
    rest = [place(trial) for trial in study.complete if trial not in study.best]
    return Plot(
        title=f"{second} against {first}", dots=_dots(best), line=line, other=_dots(rest), x=x, y=y, x_title=first
    )


@dataclass(frozen=True, kw_only=True)
class Column:
    """One upright axis of the parallel coordinates."""

    name: str
    left: float
    """Percent."""
    labels: tuple[tuple[float, str], ...]
    """(percent from below, text)."""


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """One line per complete trial through its values; the best tenth stands out."""

    columns: tuple[Column, ...]
    lines: str
    top: str


def _parallel(study: StudyRecord, params: Sequence[str]) -> Parallel | None:
    trials = study.complete[-_MOST_LINES:]
    names = [*params, *study.rewards]
    if not trials or len(names) < 2:
        return None
    tables = [[{**trial.params, **trial.values}.get(name) for trial in trials] for name in names]
    scales = [_scale(values) for values in tables]
    lefts = [100 * index / (len(names) - 1) for index in range(len(names))]
    reward, mode = next(iter(study.rewards.items()))
    order = sorted(trials, key=lambda trial: trial.values[reward], reverse=mode == "maximise")
    count = max(1, round(_TOP_SHARE * len(order)))
    top = {trial.number for trial in (order[:count] if len(study.rewards) == 1 else study.best)}
    paths: Mapping[bool, list[str]] = {True: [], False: []}
    for row, trial in enumerate(trials):
        # An argument of a branch that was not taken has no place; the line goes past its axis.
        places = [
            (left, scale[0](values[row]))
            for left, scale, values in zip(lefts, scales, tables, strict=True)
            if values[row] is not None
        ]
        path = "M" + "L".join(f"{10 * x:.0f} {1000 - 10 * y:.0f}" for x, y in places)
        paths[trial.number in top].append(path)
    columns = tuple(
        Column(name=name, left=round(left, 2), labels=scale[1])
        for name, left, scale in zip(names, lefts, scales, strict=True)
    )
    return Parallel(columns=columns, lines="".join(paths[False]), top="".join(paths[True]))


def _scale(values: Sequence[Any]) -> tuple[Any, tuple[tuple[float, str], ...]]:
    """Place of a value in percent, and the labels of the axis."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        scale = _axis(known)
        if not scale.logarithmic:
            return scale.percent, tuple((scale.percent(tick), scale.label(tick)) for tick in scale.ticks[::2])
        ends = dict.fromkeys((scale.low, *scale.ticks[::2], scale.high))
        return scale.percent, tuple((scale.percent(end), significant(end)) for end in ends)
    names = sorted({str(value) for value in known})
    places = {name: 100 * (index + 0.5) / len(names) for index, name in enumerate(names)}
    return (lambda value: places[str(value)]), tuple((place, name) for name, place in places.items())


def _axis(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    if low > 0 and high > _SPREAD * low:
        return log_axis(low, high, most=_TICKS)
    return axis(low, high, most=_TICKS)


def _dots(places: Sequence[tuple[float, float]]) -> str:
    return "".join(f"M{10 * x:.0f} {1000 - 10 * y:.0f}h0" for x, y in places)
