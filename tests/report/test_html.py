"""The page: what it says, how it is built, and that nothing in it can act."""

import base64
import hashlib
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from razordeploy.report.html import render_html
from razordeploy.report.picture import STATES
from razordeploy.report.view import kernels_by_kind
from tests.report.conftest import WHY, backend, layers_of, operations

EVIL = "<script>alert(1)</script>&\"'><img src=x>\x1b[2J{{ 7 * 7 }}"
VOID = {"meta", "br", "img", "link", "input", "hr", "wbr", "col"}


class Element:
    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent, self.children = tag, attributes, parent, []

    def find(self, tag=None, **attributes):
        """Elements below, in document order; an attribute's name may end with an underscore."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        for child in self.children:
            if isinstance(child, Element):
                same = all(child.attributes.get(n) == v for n, v in wanted.items())
                if same and tag in (None, child.tag):
                    yield child
                yield from child.find(tag, **attributes)

    @property
    def text(self):
        return " ".join(self._words().split())

    def _words(self):
        if self.tag in ("style", "script"):
            return ""
        return "".join(child._words() if isinstance(child, Element) else child for child in self.children)


class Page(HTMLParser):
    """The tree of a page; fails on a tag that is closed in the wrong order or not at all."""

    def __init__(self, html):
        super().__init__()
        self.root = self.open = Element("", {}, None)
        self.feed(html)
        self.close()
        assert self.open is self.root

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in <{tag}>"
        element = Element(tag, dict(attrs), self.open)
        self.open.children.append(element)
        if tag not in VOID:
            self.open = element

    def handle_startendtag(self, tag, attrs):
        self.open.children.append(Element(tag, dict(attrs), self.open))

    def handle_endtag(self, tag):
        assert self.open.tag == tag
        self.open = self.open.parent

    def handle_data(self, data):
        self.open.children.append(data)


def page_of(report, directory="work"):
    return Page(render_html(report, Path(directory))).root


def strings_replaced(value, text):
    if isinstance(value, dict):
        return {key: strings_replaced(item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [strings_replaced(item, text) for item in value]
    return text if isinstance(value, str) else value


class TestWhatItSays:
    def test_all_of_it(self, report):
        text = page_of(report).text
        assert text.index("✓ PASSED") < text.index("accuracy lost") < text.index("The graph")
        for words in (
            "Passed: the int8 models lose at most 0.12 points of top1 (openvino, limit 1)",
            "x: N × 1 × 8 × 8, float32",
            "128 samples, digits/train",
            "1,000 samples, digits/test",
            "22 activation tensors: uint8, asymmetric, per tensor, MinMaxObserver",
            "21 weight tensors: int8, symmetric, per channel, MSEObserver",
            "0.12 points",
            "41.7 dB",
            "29 of 31 planned operations run in int8",
            WHY,
            "2.37x",
            "296 kB",
            "400 calls of each, batch 1, the engine's choice of threads",
            "yes (avx512_vnni): int8 can multiply at up to four times the rate of float32",
            "2026.1.0",
            "2026-01-31 12:00 UTC",
        ):
            assert words in text, words

    def test_every_command_is_there_as_it_is_typed(self, report):
        commands = ["".join(code.children) for code in page_of(report).find("code")]
        assert "razordeploy ptq recipes/ptq/resnet20_digits.py --backend openvino,onnxruntime" in commands
        assert "razordeploy evaluate work" in commands
        assert "razordeploy benchmark work" in commands
        assert report["backends"]["openvino"]["usage"] in commands
        (first, *_) = commands
        assert first.splitlines()[1] == 'engine = rd.load_engine("work/openvino")'
        compile(first, "<command>", "exec")

    def test_warnings_stand_before_the_numbers(self, report):
        report["warnings"] = ["calibration data is evaluation data", "only 8 samples"]
        text = page_of(report).text
        assert text.index("2 warnings") < text.index("only 8 samples") < text.index("accuracy lost")

    def test_files_are_linked_from_where_the_page_lies(self, report):
        report["backends"]["openvino"]["files"]["engine"] = "a model #1?.xml"
        links = {a.text: a.attributes["href"] for a in page_of(report).find("a")}
        assert unquote(links["openvino/a model #1?.xml"]) == "openvino/a model #1?.xml"
        assert links["openvino/a model #1?.xml"] == "openvino/a%20model%20%231%3F.xml"
        assert links["openvino/manifest.json"] == "openvino/manifest.json"
        assert links["report.json"] == "report.json"

    def test_a_link_cannot_leave_the_folder_by_a_scheme(self, report):
        report["backends"]["openvino"]["files"]["engine"] = "javascript:alert(1)"
        for link in page_of(report).find("a"):
            assert ":" not in link.attributes["href"]

    def test_every_operation_is_a_cell_whose_link_leads_to_its_row(self, report):
        page = page_of(report)
        ops = report["backends"]["openvino"]["ops"]
        rows = {row.attributes["id"]: row for row in page.find("tr") if "id" in row.attributes}
        for place, name in enumerate(report["backends"]):
            graph = list(page.find("ol", class_="graph"))[place]
            assert graph.attributes["data-place"] == str(place)
            cells = list(graph.find("a"))
            assert len(cells) == len(ops)
            for cell, op in zip(cells, report["backends"][name]["ops"], strict=True):
                number, module, kind, node, *fates = [td.text for td in rows[cell.attributes["href"][1:]].find("td")]
                assert (module, kind, node) == (op["module"], op["op"], op["node"])
                assert fates[place].startswith(STATES[op["state"]])
                assert op.get("reason", "") in fates[place]
                assert cell.attributes["href"] == f"#o{number}"

    def test_a_state_shows_without_colour(self, report):
        """Each state has a class of its own, whose style differs in more than a colour; float has a word as well."""
        graph = next(page_of(report).find("ol", class_="graph"))
        assert {cell.attributes["class"] for cell in graph.find("a")} == {"c i", "c u", "c m", "c f"}
        style = render_html(report, Path("work"))
        differs = {".c.u": "width", ".c.m": "width", ".c.f": "repeating-linear-gradient", ".c.s": "border-color"}
        for rule, what in differs.items():
            assert what in re.search(rf"{re.escape(rule)} \{{([^}}]*)\}}", style)[1]

    def test_backends_that_saw_other_operations_share_the_table(self, report):
        ops = operations(3)
        report["backends"]["openvino"]["ops"] = ops
        report["backends"]["onnxruntime"]["ops"] = [ops[0], {**ops[1], "node": "only_here"}]
        rows = [row for row in page_of(report).find("tr") if row.attributes.get("id", "").startswith("o")]
        fates = [[td.text for td in row.find("td")][3:] for row in rows]
        assert [fate[0] for fate in fates] == ["conv2d_0", "relu_1", "conv2d_2", "only_here"]
        assert fates[1][2] == ""
        assert fates[3][1] == ""

    def test_a_planned_operation_that_runs_in_float_stands_first(self, report):
        ops = report["backends"]["openvino"]["ops"]
        ops[0] |= {"state": "float", "reason": "planned as int8, but the engine runs f32", "planned": True}
        table = next(page_of(report).find("table", class_="reasons"))
        assert "Not as planned: planned as int8, but the engine runs f32" in next(table.find("tbody")).text[:80]


class TestHowItIsBuilt:
    def test_headings_step_down_one_by_one(self, report):
        headings = [e for e in page_of(report).find() if re.fullmatch(r"h[1-6]", e.tag)]
        levels = [int(e.tag[1]) for e in headings]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b <= a + 2 if a == 1 else b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))
        assert all(e.text for e in headings)

    def test_every_table_says_what_its_columns_are(self, report):
        tables = list(page_of(report).find("table"))
        assert len(tables) >= 8
        for table in tables:
            assert all("scope" in th.attributes and th.text for th in table.find("th"))
            widths = {len([c for c in row.find() if c.tag in ("td", "th")]) for row in table.find("tr")}
            assert len(widths) == 1

    def test_every_drawing_is_hidden_from_readers_or_named(self, report):
        page = page_of(report)
        assert len(list(page.find("svg"))) == 4
        for svg in page.find("svg"):
            assert svg.attributes["aria-hidden"] == "true"
            holder = svg.parent
            while holder.attributes.get("role") != "img":
                holder = holder.parent
            assert holder.attributes["aria-label"]
        for cells in page.find("span", class_="cells"):
            assert cells.attributes["aria-hidden"] == "true"
            assert all(a.attributes["tabindex"] == "-1" for a in cells.find("a"))

    def test_ids_are_unique_and_links_inside_the_page_lead_somewhere(self, report):
        page = page_of(report)
        ids = [e.attributes["id"] for e in page.find() if "id" in e.attributes]
        assert len(ids) == len(set(ids))
        targets = {a.attributes["href"][1:] for a in page.find("a") if a.attributes["href"].startswith("#")}
        assert {"graph", "latency", "o1"} <= targets <= set(ids)

    def test_what_needs_the_script_is_hidden_without_it(self, report):
        buttons = list(page_of(report).find("button"))
        assert len(buttons) >= 6
        assert all("hidden" in button.attributes and button.attributes["aria-label"] for button in buttons)

    def test_the_same_report_gives_the_same_page(self, report):
        assert render_html(report, Path("work")) == render_html(report, Path("work"))

    def test_eight_hundred_operations_on_three_backends_stay_below_half_a_megabyte(self, report):
        ops = operations(800, stages=8)
        for op in ops:
            op["node"], op["module"] = f"convolution_default_{op['node']}", f"model.{op['module']}"
        names = ("openvino", "onnxruntime", "torch_native")
        report["backends"] = {name: backend(ops=ops, layers=layers_of(ops)) for name in names}
        html = render_html(report, Path("work"))
        assert len(html.encode()) < 500_000
        assert html.count('<a class="c ') == 2400


class TestNothingActs:
    def test_nothing_is_loaded(self, report):
        html = render_html(report, Path("work"))
        page = Page(html).root
        assert not re.search(r"https?:|//\w[\w.]*\.\w", re.sub(r"<script>.*</script>", "", html, flags=re.DOTALL))
        assert not re.search(r"https?:|fetch|XMLHttp|import\(|innerHTML|eval", next(page.find("script")).children[0])
        assert not re.search(r"url\(|@import", html)
        tags = {element.tag for element in page.find()}
        assert not tags & {"img", "iframe", "object", "embed", "image", "form", "base", "use"}
        assert [link.attributes["href"] for link in page.find("link")] == ["data:,"]
        assert not [e for e in page.find() if "src" in e.attributes or "srcset" in e.attributes]

    def test_the_policy_lets_only_the_pages_own_script_run(self, report):
        page = page_of(report)
        (script,) = page.find("script")
        digest = base64.b64encode(hashlib.sha256("".join(script.children).encode()).digest()).decode()
        (policy,) = page.find("meta", http_equiv="Content-Security-Policy")
        rules = dict(rule.strip().split(" ", 1) for rule in policy.attributes["content"].split(";"))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == f"'sha256-{digest}'"

    def test_every_string_is_escaped(self, report):
        report["warnings"] = ["one"]
        clean, evil = page_of(report), strings_replaced(report, EVIL)
        evil["backends"] = {f"{EVIL}{index}": entry for index, entry in enumerate(evil["backends"].values())}
        html = render_html(evil, Path("work"))
        page = Page(html).root
        assert {e.tag for e in page.find()} <= {e.tag for e in clean.find()} | {"strong"}
        assert len(list(page.find("script"))) == 1
        assert page.text.count("<script>alert(1)</script>") > 100
        assert page.text.count("{{ 7 * 7 }}") > 100
        assert "\x1b" not in html
        assert not [e for e in page.find() if any(name.startswith("on") for name in e.attributes)]


FIELDS = [
    "metrics", "gap", "coverage", "parity", "latency_ms", "speedup", "size_bytes", "calibration", "limits", "layers",
    "latency_samples_ms", "graph", "files", "seconds", "ops", "scheme", "benchmark", "usage",
]  # fmt: skip


class TestWhatIsNotThere:
    @pytest.mark.parametrize("field", FIELDS)
    def test_a_part_that_was_not_measured(self, report, field):
        for entry in report["backends"].values():
            del entry[field]
        assert "openvino" in page_of(report).text
        if field != "coverage":
            for entry in report["backends"].values():
                entry[field] = None if field == "speedup" else type(backend()[field])()
            page_of(report)

    def test_a_report_without_operations_still_lists_those_in_float(self, report):
        del report["backends"]["onnxruntime"], report["backends"]["openvino"]["ops"]
        text = page_of(report).text
        assert "kept in float by the recipe" in text
        assert "Operations in float (2)" in text
        assert "Table of all operations" not in text

    def test_nothing_was_measured(self):
        entry = {"passed": True}
        report = {"schema_version": 1, "model": "m", "created": "2026-01-31", "backends": {"a": entry}}
        text = page_of(report).text
        assert "no check failed, but accuracy was not measured" in text
        assert text.count("Not measured.") == 2
        assert "Coverage was not measured." in text
        assert "nothing: no labelled data" in text

    def test_a_failed_backend_shows_its_error(self, report, failed_backend):
        report["backends"] = {"tensorrt": failed_backend}
        text = page_of(report).text
        assert "✗ FAILED" in text
        assert "tensorrt made no engine" in text
        assert "tensorrt: 'tensorrt' is not installed; pip install 'razordeploy[tensorrt]'" in text
        assert "The graph" not in text
        del report["command"]
        assert "razordeploy doctor" in page_of(report).text

    def test_a_conversion_in_float_is_nowhere_called_int8(self, report):
        del report["backends"]["onnxruntime"]
        entry = report["backends"]["openvino"]
        lost = [{"node": "n", "op": "Conv", "reason": "converted in float"}]
        entry["coverage"] = {"planned": 0, "int8": 0, "float": lost}
        entry["graph"] = [{"name": "n", "op": "Conv", "precision": "f32"}]
        del entry["ops"], entry["scheme"]
        text = page_of(report).text
        assert "the engine loses 0.12 points" in text
        assert "the engine runs at 2.37x the speed of float" in text
        assert "nothing was planned in int8" in text
        for word in ("top1, int8", "int8 model", "int8 engine", "int8 runs", "0 of 0"):
            assert word not in text

    def test_the_smallest_report(self):
        report = {"schema_version": 1, "model": "m", "created": "2026-01-31", "backends": {}}
        assert "no backend was run" in page_of(report).text

    def test_one_operation(self, report):
        ops = operations(1)
        report["backends"] = {"a": backend(ops=ops, layers=layers_of(ops))}
        page = page_of(report)
        assert len(list(page.find("ol", class_="graph"))) == 1
        assert "1 layer in the order" in page.text

    def test_odd_numbers(self, report):
        entry = report["backends"]["openvino"]
        entry["latency_samples_ms"] = {"float": [], "engine": [1.0]}
        entry["latency_ms"] = {"float": {}, "engine": {"p50": 0.0, "p90": None, "p99": math.nan}}
        entry["layers"] = [{"module": "only", "sqnr_db": None}, {"node": "n", "sqnr_db": -3.0}]
        entry["size_bytes"] = {"float": 0, "engine": 0}
        entry["graph"] = [{"name": "n", "op": "模型" * 40, "precision": "f32"}]
        entry["metrics"] = {point: {"top1": math.nan} for point in ("float", "simulated", "engine")}
        entry["gap"] = dict.fromkeys(entry["gap"])
        text = page_of(report).text
        assert not re.search(r"\b(nan|inf|None)\b", text)
        assert "Without a number, 1" in text


def test_kernels_are_counted_by_kind():
    graph = [("Conv", "int8"), ("Conv", "U8"), ("Conv", "float32"), ("Add", "float16"), ("Add", "bfloat16")]
    nodes = [{"name": "n", "op": op, "precision": precision} for op, precision in graph]
    assert kernels_by_kind({"passed": True, "graph": nodes}) == [("Conv", 2, 1), ("Add", 0, 2)]


def test_importing_the_report_imports_no_heavy_package():
    code = (
        "import sys, razordeploy.report.html, razordeploy.report.write, razordeploy.report.schema;"
        "heavy = {'torch', 'numpy', 'matplotlib', 'jinja2', 'onnxruntime', 'openvino'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
