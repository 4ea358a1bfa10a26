"""The plots of the page, as SVG that takes its colours from the page and so fits light and dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from razordeploy.report import wording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# matplotlib knows no CSS variables: it draws in these, and they are replaced in its output.
_TEXT, _LINE, _INT8, _FLOAT, _BAD = "#010203", "#010204", "#010205", "#010206", "#010207"
_CSS = {_TEXT: "var(--muted)", _LINE: "var(--line)", _INT8: "var(--int8)", _FLOAT: "var(--float)", _BAD: "var(--bad)"}
_WIDTH_INCHES = 5.0
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT,
    "legend.frameon": False,
}
_LABEL_CHARACTERS = 24
_ECDF_POINTS = 200


def coverage_svg(kinds: Sequence[tuple[str, int, int]], key: str) -> str:
    """Draw how many operations of each kind run in int8 and in float: (kind, int8, float)."""
    with _canvas(0.55 + 0.27 * len(kinds), key) as (axes, out):
        rows = range(len(kinds))
        int8, rest = [kind[1] for kind in kinds], [kind[2] for kind in kinds]
        axes.barh(rows, int8, color=_INT8, height=0.68)
        axes.barh(rows, rest, left=int8, color=_FLOAT, height=0.68)
        for row, total in enumerate(a + b for a, b in zip(int8, rest, strict=True)):
            axes.annotate(str(total), (total, row), (4, 0), textcoords="offset points", va="center", fontsize=8.5)
        axes.set_yticks(rows, [_label(kind[0]) for kind in kinds])
        axes.set_ylim(len(kinds) - 0.4, -0.6)
        axes.set_xlabel("operations")
        _whole_numbers(axes)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.08)
    return out[0]


def layers_svg(sqnr_db: Sequence[float], worst: Sequence[int], key: str) -> str:
    """Draw the SQNR of every layer in network order; ``worst`` are the indices to point out."""
    with _canvas(2.2, key) as (axes, out):
        colours = [_BAD if index in worst else _INT8 for index in range(len(sqnr_db))]
        axes.bar(range(1, len(sqnr_db) + 1), sqnr_db, color=colours, width=0.75)
        # A mark as well: among hundreds of thin bars, or without colour, the red ones are lost.
        axes.plot([index + 1 for index in worst], [sqnr_db[index] for index in worst], "v", color=_BAD, markersize=5)
        axes.set_xlabel("layer, in network order")
        axes.set_ylabel("SQNR, dB")
        _whole_numbers(axes)
        axes.grid(axis="x", visible=False)
        axes.margins(x=0.01)
    return out[0]


def latency_svg(float_ms: Sequence[float], engine_ms: Sequence[float], key: str) -> str:
    """Draw which share of the calls was at most so long, for the float and the int8 engine."""
    with _canvas(2.2, key) as (axes, out):
        longest = 0.0
        for samples, colour, name in ((float_ms, _FLOAT, "float"), (engine_ms, _INT8, "int8")):
            ordered = sorted(samples)
            if not ordered:
                continue
            count = min(len(ordered), _ECDF_POINTS)
            ranks = [round(step * (len(ordered) - 1) / max(1, count - 1)) for step in range(count)]
            shares = [100 * (rank + 1) / len(ordered) for rank in ranks]
            axes.step([ordered[rank] for rank in ranks], shares, color=colour, where="post", linewidth=2, label=name)
            # One stray call of a second would press the rest against the left edge.
            longest = max(longest, 1.3 * ordered[int(0.99 * (len(ordered) - 1))])
        axes.set_xlim(0, longest or 1)
        axes.set_ylim(0, 102)
        axes.set_xlabel("latency, ms")
        axes.set_ylabel("calls, %")
    return out[0]


def sizes_svg(rows: Sequence[tuple[str, float, float]], key: str) -> str:
    """Draw the size of the float and the int8 model of each backend: (backend, bytes, bytes)."""
    with _canvas(0.55 + 0.6 * len(rows), key) as (axes, out):
        for offset, colour, column in ((-0.19, _FLOAT, 1), (0.19, _INT8, 2)):
            values = [float(row[column]) / 1e6 for row in rows]
            places = [index + offset for index in range(len(rows))]
            axes.barh(places, values, color=colour, height=0.34)
            for place, value in zip(places, values, strict=True):
                text = wording.size(value * 1e6)
                axes.annotate(text, (value, place), (4, 0), textcoords="offset points", va="center", fontsize=8.5)
        axes.set_yticks(range(len(rows)), [_label(row[0]) for row in rows])
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.set_xlabel("MB")
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.14)
    return out[0]


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


@contextmanager
def _canvas(height_inches: float, key: str) -> Iterator[tuple[Axes, list[str]]]:
    """Yield axes to draw on and a list that holds the SVG afterwards; ``key`` keeps ids apart on the page."""
    import matplotlib
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), matplotlib.rc_context({**_RC, "svg.hashsalt": key}):
        # The browser has the font, matplotlib only measures with its own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        out: list[str] = []
        yield figure.add_subplot(), out
        stream = io.StringIO()
        bare = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=bare)
        out.append(_inline(stream.getvalue(), key))


def _inline(svg: str, key: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    # Scaled by the page; the ids of several drawings must not meet.
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*"', r'<svg \1aria-hidden="true"', svg, count=1)
    svg = re.sub(r'\bid="(?P<id>[^"]+)"', rf'id="{key}-\g<id>"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for colour, css in _CSS.items():
        svg = svg.replace(colour, css)
    return svg


def _label(text: str) -> str:
    text = wording.plain(text)
    return text if len(text) <= _LABEL_CHARACTERS else f"{text[: _LABEL_CHARACTERS - 1]}…"
