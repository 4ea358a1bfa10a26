"""What ``analyze`` leaves behind: JSON, CSV, a picture and a page; and the line that keeps layers in float."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from razordeploy.storage import atomic_write
from razordeploy.strict_json import json_text

_PARTS = ("isolated", "weights", "activations", "cumulative")
_WEIGHTED = ("conv", "depthwise", "linear")
COLUMNS = (
    *("rank", "node", "module", "op"),
    *(f"{part}_{figure}" for part in _PARTS for figure in ("sqnr_db", "drop")),
)


def rows(layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One flat row an operation, the most harmful first: the least SQNR where it alone is quantized."""
    found = sorted(layers, key=_noise)
    return [_row(rank, layer) for rank, layer in enumerate(found, 1)]


def _noise(layer: Mapping[str, Any]) -> float:
    db = layer["isolated"]["sqnr_db"]
    return float("inf") if db is None else float(db)


def _row(rank: int, layer: Mapping[str, Any]) -> dict[str, Any]:
    row = {"rank": rank, "node": layer["node"], "module": layer["module"], "op": layer["op"]}
    for part in _PARTS:
        effect = layer.get(part) or {}
        row[f"{part}_sqnr_db"], row[f"{part}_drop"] = effect.get("sqnr_db"), effect.get("drop")
    return row


def keep_float(layers: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """Modules of the ``count`` most harmful layers that a recipe can name: those with a weight of their own."""
    named = [r["module"] for r in rows(layers) if r["module"] and str(r["op"]).startswith(_WEIGHTED)]
    return list(dict.fromkeys(named))[:count]


def keep_line(modules: Sequence[str]) -> str:
    """What to type so that ``modules`` stay in float."""
    return f'--set "quantize.skip={list(modules)}"'


def write_analysis(analysis: Mapping[str, Any], folder: Path, keep: int) -> list[Path]:
    """Write ``<backend>.json``, ``.csv``, ``.png`` and ``.html``; return their paths.

    Args:
        analysis: backend, samples, metric, float_metric, whole and layers, as plain types.
        folder: where they go.
        keep: layers that the line keeps in float.
    """
    table, modules = rows(analysis["layers"]), keep_float(analysis["layers"], keep)
    content = {**analysis, "ranked": [r["node"] for r in table], "keep_float": modules, "line": keep_line(modules)}
    picture = plot(analysis)
    stem = folder / str(analysis["backend"])
    files = {
        ".json": json_text(content).encode(),
        ".csv": _csv(table).encode(),
        ".png": picture,
        ".html": _page(analysis, table, modules, picture).encode(),
    }
    written = []
    for suffix, data in files.items():
        path = stem.with_suffix(suffix)
        atomic_write(path, data)
        written.append(path)
    return written


def _csv(table: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def plot(analysis: Mapping[str, Any]) -> bytes:
    """PNG: SQNR of every operation in execution order, alone and in sum."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers = analysis["layers"]
    figure = Figure(figsize=(max(7.0, 0.28 * len(layers)), 5.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    marks = {"isolated": "o", "weights": "v", "activations": "^", "cumulative": "s"}
    words = {"isolated": "alone", "weights": "its weight", "activations": "its inputs", "cumulative": "all up to it"}
    for part, mark in marks.items():
        found = [(i, v["sqnr_db"]) for i, r in enumerate(layers) if (v := r.get(part)) and v["sqnr_db"] is not None]
        if found:
            line = "-" if part == "cumulative" else ""
            axes.plot(*zip(*found, strict=True), linestyle=line, marker=mark, markersize=5, label=words[part])
    axes.set_xticks(range(len(layers)), [r["module"] or r["node"] for r in layers], rotation=90, fontsize=7)
    axes.set_ylabel("SQNR of the model's outputs, dB (less is worse)")
    axes.set_title(f"{analysis['backend']}: what quantizing each operation does")
    axes.grid(axis="y", alpha=0.3)
    if layers:
        axes.legend()
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Sensitivity: {{ a.backend }}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
table{border-collapse:collapse;width:100%}th,td{padding:.25rem .5rem;text-align:right;border-bottom:1px solid #8884}
th:nth-child(2),td:nth-child(2),td:nth-child(3),th:nth-child(3){text-align:left}img{max-width:100%}
pre{padding:.75rem;overflow:auto;border:1px solid #8886}div{overflow:auto}</style></head><body>
<h1>{{ a.backend }}: what each operation loses</h1>
<p>{{ a.samples }} samples{% if a.metric %}, {{ a.metric }} in float {{ a.float_metric | figure }}, all quantized
{{ a.whole.drop | figure }} points less{% endif %}; SQNR of the outputs with all quantized
{{ a.whole.sqnr_db | figure }} dB.</p>
{% if modules %}<p>To keep the worst {{ modules | length }} in float:</p><pre>{{ line }}</pre>{% endif %}
<p><img alt="SQNR of every operation in execution order" src="data:image/png;base64,{{ picture }}"></p>
<div><table><thead><tr><th>rank</th><th>module</th><th>op</th>
{% for part in parts %}<th>{{ part }}, dB</th><th>drop</th>{% endfor %}</tr></thead><tbody>
{% for row in table %}<tr><td>{{ row.rank }}</td><td>{{ row.module or row.node }}</td><td>{{ row.op }}</td>
{% for part in parts %}<td>{{ row[part ~ "_sqnr_db"] | figure }}</td><td>{{ row[part ~ "_drop"] | figure }}</td>
{% endfor %}</tr>{% endfor %}</tbody></table></div></body></html>
"""


def _page(
    analysis: Mapping[str, Any], table: Sequence[Mapping[str, Any]], modules: Sequence[str], picture: bytes
) -> str:
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters["figure"] = lambda value: "–" if value is None else f"{value:.2f}"
    return environment.from_string(_PAGE).render(
        a=analysis,
        table=table,
        modules=modules,
        line=keep_line(modules),
        parts=_PARTS,
        picture=base64.b64encode(picture).decode(),
    )
