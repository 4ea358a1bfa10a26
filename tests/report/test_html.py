import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from razordeploy import lazy
from razordeploy.report.html import operations_by_kind, render_html

EVIL = "<script>alert(1)</script>&\"'><img src=x>\x1b[2J$x_1$"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, attributes and text; fails on a tag that is closed in the wrong order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], set(), [], ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def strings_replaced(value, text):
    if isinstance(value, dict):
        return {key: strings_replaced(item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [strings_replaced(item, text) for item in value]
    return text if isinstance(value, str) else value


def test_the_page_says_it_all(report):
    text = " ".join(Page(render_html(report, Path("work"))).text.split())
    assert text.index("PASSED") < text.index("openvino")
    for words in (
        "gap 0.12 pts (limit 1.0)",
        "0.12 points",
        "41.7 dB",
        "29 of 31 planned operations",
        "kept in float by the recipe",
        "backbone.stage",
        "2.37x",
        "296 kB",
        "avx512_vnni",
        "2026.1.0",
        "razordeploy ptq recipes/ptq/resnet20_digits.py --backend openvino,onnxruntime",
        "razordeploy evaluate work",
        'rd.load_engine("work/openvino")',
    ):
        assert words in text, words


def test_nothing_is_loaded_and_nothing_runs(report):
    html = render_html(report, Path("work"))
    page = Page(html)
    assert not re.search(r"https?:|//\w", html)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "image"}
    assert "Content-Security-Policy" in html
    references = [value for _, name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith("#") for value in references)
    assert not re.search(r"url\((?!#)|@import", html)


def test_every_string_is_escaped(report):
    clean, evil = Page(render_html(report, Path("work"))), strings_replaced(report, EVIL)
    evil["backends"] = {f"{EVIL}{index}": entry for index, entry in enumerate(evil["backends"].values())}
    html = render_html(evil, Path("work"))
    page = Page(html)
    assert page.tags == clean.tags
    assert page.text.count("<script>alert(1)</script>") > 50
    assert "\x1b" not in html
    assert not [a for a in page.attributes if a[1].startswith("on")]


def test_labels_in_a_plot_are_text_and_no_formula(report):
    report["backends"]["openvino"]["graph"] = [{"name": "n", "op": "$x_1$ & <b>\\frac", "precision": "int8"}]
    page = Page(render_html(report, Path("work")))
    assert "$x_1$ & <b>\\frac" in page.text
    assert "b" not in page.tags


def test_the_plots_take_the_colours_of_the_page_and_keep_ids_apart(report):
    html = render_html(report, Path("work"))
    page = Page(html)
    assert html.count("<svg") == 7
    # The colours that matplotlib was given never reach the page, and no colour of its own does.
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawings)) <= {"#000000"}
    assert {"var(--int8)", "var(--float)", "var(--bad)", "var(--muted)"} <= set(re.findall(r"var\(--\w+\)", drawings))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 50
    targets = set(re.findall(r'(?:href="|url\()#([^")]+)', html))
    assert targets <= set(ids)
    assert "prefers-color-scheme: dark" in html


def test_the_same_report_gives_the_same_page(report):
    assert render_html(report, Path("work")) == render_html(report, Path("work"))


FIELDS = [
    "metrics", "gap", "coverage", "parity", "latency_ms", "speedup", "size_bytes", "calibration", "limits", "layers",
    "latency_samples_ms", "graph", "files", "seconds",
]  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_a_part_that_was_not_measured_is_left_out(report, field):
    del report["backends"]["onnxruntime"]
    for entry in report["backends"].values():
        del entry[field]
    assert "openvino" in Page(render_html(report, Path("work"))).text
    for entry in report["backends"].values():
        entry[field] = None if field == "speedup" else type(entry.get(field, {}))()
    if field != "coverage":
        Page(render_html(report, Path("work")))


def test_a_failed_backend_shows_its_error(report, failed_backend):
    report["backends"] = {"tensorrt": failed_backend}
    text = Page(render_html(report, Path("work"))).text
    assert "FAILED" in text
    assert "This backend failed (exit code 3)" in text
    assert "pip install 'razordeploy[tensorrt]'" in text
    assert "razordeploy doctor" in text


def test_the_smallest_report():
    report = {"schema_version": 1, "model": "m", "created": "2026-01-31", "backends": {}}
    assert "No backend was run" in Page(render_html(report, Path("work"))).text


def test_odd_numbers_are_drawn(report):
    entry = report["backends"]["openvino"]
    entry["latency_samples_ms"] = {"float": [], "engine": [1.0]}
    entry["layers"] = [{"module": "only", "sqnr_db": None}, {"node": "n", "sqnr_db": -3.0}]
    entry["size_bytes"] = {"float": 0, "engine": 0}
    entry["graph"] = [{"name": "n", "op": "模型" * 40, "precision": "f32"}]
    Page(render_html(report, Path("work")))


def test_without_matplotlib_the_numbers_stay(report, monkeypatch):
    monkeypatch.setattr(lazy, "available", lambda module: False)
    html = render_html(report, Path("work"))
    assert "<svg" not in html
    assert "The plots are left out" in html
    assert "29 of 31 planned operations" in html


def test_operations_are_counted_by_kind():
    graph = [("Conv", "int8"), ("Conv", "U8"), ("Conv", "float32"), ("Add", "float16"), ("Add", "bfloat16")]
    nodes = [{"name": "n", "op": op, "precision": precision} for op, precision in graph]
    assert operations_by_kind({"graph": nodes}) == [("Conv", 2, 1), ("Add", 0, 2)]
    coverage = {"planned": 9, "int8": 7, "float": [{"node": "n", "op": "Gelu", "reason": "r"}] * 2}
    assert operations_by_kind({"coverage": coverage}) == [("all int8 operations", 7, 0), ("Gelu", 0, 2)]
    many = [{"name": "n", "op": f"op{index}", "precision": "int8"} for index in range(40)]
    rows = operations_by_kind({"graph": many})
    assert len(rows) == 14
    assert rows[-1] == ("27 other kinds", 27, 0)


def test_importing_the_report_imports_no_heavy_package():
    code = (
        "import sys, razordeploy.report.html, razordeploy.report.write, razordeploy.report.schema;"
        "heavy = {'torch', 'numpy', 'matplotlib', 'jinja2', 'onnxruntime', 'openvino'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
