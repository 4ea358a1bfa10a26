"""The page of a search: what was chosen, what it was chosen from, and what comes next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from razordeploy.report.html import environment, source
from razordeploy.report.pareto import front_indices, pareto_plot

_UNITS = {"macs": "million multiply-accumulates", "flops": "million FLOPs", "params": "million parameters"}
_MOST_FAILURES = 10


def render_search(report: Mapping[str, Any]) -> str:
    """Return the page of a search's ``report.json``; one file, no network, no script."""
    from markupsafe import Markup

    return str(
        environment().get_template("search.html.jinja").render(search_view(report), style=Markup(source("style.css")))
    )


def search_view(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows, in words."""
    chosen, axes = report["chosen"], report["pareto"]["costs"]
    scored = [one for one in report["candidates"] if one["score"] is not None]
    reasons = Counter(one["error"] for one in report["candidates"] if one.get("error"))
    return {
        "passed": report["passed"],
        "model": report["model"],
        "created": report["created"],
        "sentence": sentence(report),
        "problems": report["failures"],
        "warnings": report["warnings"],
        "plots": [_plot(report, scored, cost) for cost in axes],
        "facts": _facts(report),
        "groups": [
            (name, show(chosen["subnet"][name]), ", ".join(show(choice) for choice in choices))
            for name, choices in report["space"]["groups"].items()
        ],
        "columns": [report["search"]["score"], *(_heading(name) for name in _columns(report))],
        "front": _front(report, scored, axes[0]),
        "failed": [(count, text) for text, count in reasons.most_common(_MOST_FAILURES)],
        "commands": report["commands"],
        "footer": f"razordeploy {report['versions'].get('razordeploy', '')}: {report['command']}",
    }


def sentence(report: Mapping[str, Any]) -> str:
    """The result in one sentence."""
    chosen, name = report["chosen"], report["search"]["score"]
    first = report["pareto"]["costs"][0]
    cost = cost_text(first, chosen["measured_ms"].get(first.partition("@")[2], chosen["costs"][first]))
    found = f"{name} {chosen['score']:.2f} at {cost}"
    return f"{found}: the best of {report['evaluated']} evaluated subnets, of {size_text(report['space']['size'])}"


def cost_text(name: str, value: float) -> str:
    """``0.21 M multiply-accumulates``, ``0.083 ms on openvino``."""
    if name.startswith("latency@"):
        return f"{value:.3g} ms on {name.partition('@')[2]}"
    return f"{value:.4g} {_UNITS[name]}"


def size_text(size: int) -> str:
    """The size of a space, written out or as a power of ten."""
    return f"{size:,}" if size < 10**7 else f"10^{len(str(size)) - 1}"


def show(choice: Any) -> str:
    """A choice as a reader writes it."""
    return " x ".join(map(str, choice)) if isinstance(choice, list | tuple) else str(choice)


def _plot(report: Mapping[str, Any], scored: Sequence[Mapping[str, Any]], cost: str) -> dict[str, Any]:
    points = [(float(one["costs"][cost]), float(one["score"])) for one in scored]
    picked = next(i for i, one in enumerate(scored) if one["number"] == report["chosen"]["number"])
    quality = report["search"]["score"]
    return {
        "plot": pareto_plot(points, [(picked, f"subnet {report['chosen']['number']}")]),
        "quality": quality,
        "cost": _heading(cost),
        "unit": f"predicted ms on {cost.partition('@')[2]}" if cost.startswith("latency@") else _UNITS[cost],
        "text": f"{quality} of {len(points)} subnets against {_heading(cost)}; the front is in the table below",
    }


def _columns(report: Mapping[str, Any]) -> list[str]:
    return list(report["chosen"]["costs"])


def _heading(name: str) -> str:
    return f"{name}, ms" if name.startswith("latency@") else f"{name}, M"


def _front(report: Mapping[str, Any], scored: Sequence[Mapping[str, Any]], cost: str) -> list[dict[str, Any]]:
    points = [(float(one["costs"][cost]), float(one["score"])) for one in scored]
    rows = []
    for i in front_indices(points):
        one = scored[i]
        cells = [f"{one['score']:.2f}", *(f"{one['costs'][name]:.4g}" for name in _columns(report))]
        rows.append(
            {"name": f"subnet {one['number']}", "chosen": one["number"] == report["chosen"]["number"], "cells": cells}
        )
    return rows


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    search, chosen = report["search"], report["chosen"]
    facts = [
        ("recipe", str(report["recipe"])),
        ("supernet", f"{size_text(report['space']['size'])} subnets, {len(report['space']['groups'])} groups"),
        ("search", f"{search['type']}, seed {report['seed']}"),
        ("candidates", _counts(report)),
        ("time", f"{report['seconds']:.1f} s; {report['checked']:,} subnets held against the limits"),
    ]
    if search["constraints"]:
        facts.append(("limits", "; ".join(_limit(name, span) for name, span in search["constraints"].items())))
    for backend, table in report["latency"].items():
        text = f"{table['samples']} int8 engines measured; prediction is off by {table['mape']:.1f} % (left out)"
        predicted = chosen["costs"].get(f"latency@{backend}")
        if backend in chosen["measured_ms"] and predicted is not None:
            text += f"; chosen: predicted {predicted:.3g} ms, measured {chosen['measured_ms'][backend]:.3g} ms"
        facts.append((f"latency on {backend}", text))
    predictor = report.get("predictor")
    if predictor:
        facts.append(
            (
                "predictor",
                f"{predictor['type']} on {predictor['trained_on']} subnets, {predictor['predicted']} predicted; "
                f"rank correlation {predictor['left_out']['spearman']:.2f} on subnets that were left out",
            )
        )
    exported = ", ".join(f"{name} {value:.2f}" for name, value in chosen["exported"].items())
    facts.append(("exported files, read again", exported))
    return facts


def _counts(report: Mapping[str, Any]) -> str:
    text = f"{report['evaluated']} evaluated"
    if report["failed"]:
        text += f", {report['failed']} failed"
    if report["from_journal"]:
        text += f", {report['from_journal']} of them known from an earlier run"
    return text


def _limit(name: str, span: Sequence[float | None]) -> str:
    low, high = span
    unit = "ms" if name.startswith("latency@") else "M"
    if not low:
        return f"{name} at most {high:.4g} {unit}"
    return f"{name} from {low:.4g} {unit}" + ("" if high is None else f" to {high:.4g} {unit}")
