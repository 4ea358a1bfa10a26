"""The page in a real browser: narrow and wide, light and dark, with and without its script."""

import copy
import json

import pytest

from razordeploy.report.write import write_report
from tests.report.chromium import Chromium, find_chromium
from tests.report.conftest import backend, layers_of, operations

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no chromium on the PATH")

# Every text with its colour and the colours behind it; the middle of a gradient stands for it.
CONTRAST = """
(() => {
  const colour = (text) => {
    const found = text.match(/rgba?\\(([^)]+)\\)/);
    return found ? found[1].split(/[ ,/]+/).map(Number) : [0, 0, 0, 0];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      const found = style.backgroundImage.match(/rgba?\\([^)]+\\)/g);
      if (found) return found.map(colour);
      const flat = colour(style.backgroundColor);
      if (flat.length < 4 || flat[3] > 0) return [flat];
    }
    return [[255, 255, 255]];
  };
  const bad = new Map();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let count = 0;
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest("script, .sr") || !element.getClientRects().length) continue;
    const front = light(colour(getComputedStyle(element).color));
    for (const back of behind(element)) {
      const [low, high] = [front, light(back)].sort((a, b) => a - b);
      count += 1;
      const ratio = (high + 0.05) / (low + 0.05);
      if (ratio < 4.5) bad.set(`${element.tagName}.${element.className}`, ratio);
    }
  }
  return JSON.stringify({ count, bad: Object.fromEntries(bad) });
})()
"""

# Text that is cut off: wider than its box, where the box neither scrolls nor shows what juts out.
CUT = """
[...document.querySelectorAll("main *")].filter((e) => {
  const style = getComputedStyle(e);
  if (e.closest(".sr, svg") || style.overflowX === "visible" || style.display === "inline") return false;
  return style.overflowX === "hidden" && e.scrollWidth > e.clientWidth + 1;
}).map((e) => `${e.tagName}.${e.className}: ${e.textContent.slice(0, 40)}`)
"""


def _long_names(report):
    name = "a_name_that_somebody_chose_without_a_thought_for_those_who_read_it." * 4
    report |= {"model": name, "warnings": [name, "x" * 300], "command": f"razordeploy ptq {'y' * 300}"}
    for entry in report["backends"].values():
        for op in entry["ops"]:
            op["module"] = f"{name}{op['module']}"
            if op["state"] == "float":
                op["reason"] = name
        entry["layers"] = layers_of(entry["ops"])
    report["backends"][name[:60]] = report["backends"].pop("openvino")
    return report


def _large(report):
    ops = operations(800, stages=8)
    report["backends"] = {n: backend(ops=ops, layers=layers_of(ops)) for n in ("openvino", "onnxruntime")}
    return report


def _failed(report):
    report["backends"]["onnxruntime"] |= {"passed": False, "failures": ["the engine loses 3.20 points, over 1.0"]}
    report["backends"]["onnxruntime"]["gap"]["float_to_engine"] = 3.2
    report["backends"]["tensorrt"] = {"passed": False, "error": "it is not installed", "exit_code": 3}
    report["warnings"] = ["only 8 samples"]
    return report


def _bare(report):
    report["backends"] = {"openvino": {"passed": True}}
    return report


REPORTS = {"usual": lambda report: report, "long": _long_names, "large": _large, "failed": _failed, "bare": _bare}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Chromium(find_chromium(), tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def address(report, tmp_path):
    def write(kind):
        _, html = write_report(REPORTS[kind](copy.deepcopy(report)), tmp_path / kind)
        return html.as_uri()

    return write


@pytest.mark.parametrize("kind", REPORTS)
def test_it_fits_reads_and_stays_silent(browser, address, kind):
    url = address(kind)
    for width, dark in ((360, False), (360, True), (1600, False), (1600, True)):
        browser.open(url, width=width, dark=dark)
        where = f"{width} px, {'dark' if dark else 'light'}"
        assert browser.errors() == [], where
        assert browser.requests() == [url], where
        assert browser.evaluate("document.documentElement.scrollWidth") <= width, where
        assert browser.evaluate(CUT) == [], where
        found = json.loads(browser.evaluate(CONTRAST))
        assert found["count"] > 50
        assert found["bad"] == {}, where


def test_dark_is_dark(browser, address):
    url = address("usual")
    colours = []
    for dark in (False, True):
        browser.open(url, width=800, dark=dark)
        colours.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(244, 245, 247)", "rgb(14, 17, 20)"]


def test_the_contrast_check_can_fail(browser, address):
    browser.open(address("usual"), width=800)
    browser.evaluate("document.querySelector('h1').style.color = '#ccc'")
    assert list(json.loads(browser.evaluate(CONTRAST))["bad"]) == ["H1."]


@pytest.mark.parametrize("width", [360, 1600])
def test_marks_and_labels_of_the_plots_do_not_meet(browser, address, width):
    browser.open(address("usual"), width=width)
    boxes = """
    [...document.querySelectorAll(".gutter, .slots, .ticks")].map((row) => [...row.children].map((e) => {
      const box = e.getBoundingClientRect();
      return [box.left, box.right];
    }).sort((a, b) => a[0] - b[0]))
    """
    rows = [row for row in browser.evaluate(boxes) if row]
    assert len(rows) >= 4
    for row in rows:
        assert all(a[1] <= b[0] + 0.5 for a, b in zip(row, row[1:], strict=False)), row
        assert row[0][0] >= 0
        assert row[-1][1] <= width


def test_a_cell_tells_what_it_stands_for(browser, address, report):
    browser.open(address("usual"), width=360)
    browser.evaluate("document.querySelectorAll('.graph')[1].querySelectorAll('a')[6].click()")
    tip = browser.evaluate("[...document.querySelector('#tip').children].map((e) => e.textContent)")
    op = report["backends"]["onnxruntime"]["ops"][6]
    assert tip == [f"gelu in {op['module']}", f"float: {op['reason']}", f"node {op['node']}, no. 7"]
    box = browser.evaluate("document.querySelector('#tip').getBoundingClientRect().toJSON()")
    left, right, top = (box[side] for side in ("left", "right", "top"))
    assert 0 <= left < right <= 360
    assert top >= 0
    assert browser.evaluate("location.hash") == ""
    browser.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    assert browser.evaluate("document.querySelector('#tip').hidden") is True
    assert browser.errors() == []


def test_the_copy_button_copies_the_command(browser, address, report):
    browser.open(address("usual"), width=800)
    browser.evaluate(
        "window.copied = []; Object.defineProperty(navigator, 'clipboard',"
        " {value: {writeText: async (text) => { window.copied.push(text); }}})"
    )
    browser.evaluate("document.querySelectorAll('.copy').forEach((button) => button.click())")
    copied = browser.evaluate("new Promise((done) => setTimeout(() => done(window.copied), 50))")
    assert report["command"] in copied
    assert report["backends"]["openvino"]["usage"] in copied
    assert browser.evaluate("document.querySelector('.copy').textContent") == "Copied"
    assert browser.evaluate("document.querySelector('#said').textContent") == "Copied"


def test_without_scripts_the_links_lead_to_the_table(browser, address):
    url = address("usual")
    browser.open(f"{url}#o7", width=800, scripts=False)
    assert browser.errors() == []
    state = """
    (() => {
      const row = document.getElementById("o7");
      return [row.closest("details").open, row.matches(":target"), document.querySelector(".copy").hidden];
    })()
    """
    assert browser.evaluate(state) == [True, True, True]
