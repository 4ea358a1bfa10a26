from __future__ import annotations

import copy
import random

from razordeploy.compress.nas.search.scored import Scored, pareto_front
from razordeploy.report.pareto import front_indices, pareto_plot
from razordeploy.report.search_page import render_search, search_view, sentence

CANDIDATES = [
    {"number": i, "subnet": {"op": op}, "score": score, "costs": {"macs": macs, "latency@openvino": ms}}
    for i, (op, score, macs, ms) in enumerate(
        [("a", 90.0, 1.0, 0.3), ("<b>", 92.5, 2.0, 0.2), ("c", 91.0, 3.0, 0.5), ("d", None, None, None)]
    )
]
CANDIDATES[3]["error"] = "ValueError: <boom>"
REPORT = {
    "model": "SPOS",
    "created": "2025-01-01",
    "command": "razordeploy search x.py",
    "recipe": "x.py",
    "seed": 0,
    "passed": True,
    "failures": [],
    "warnings": [],
    "search": {"type": "evolution", "options": {}, "constraints": {"macs": [0.0, 4.0]}, "score": "top1"},
    "space": {"size": 10**12, "groups": {"op": ["a", "<b>", "c", "d"]}},
    "evaluated": 4,
    "failed": 1,
    "from_journal": 2,
    "checked": 1000,
    "seconds": 3.0,
    "chosen": {
        "number": 1,
        "subnet": {"op": "<b>"},
        "score": 92.5,
        "costs": {"macs": 2.0, "latency@openvino": 0.2},
        "measured_ms": {"openvino": 0.21},
        "exported": {"top1": 92.5},
    },
    "pareto": {"costs": ["latency@openvino", "macs"]},
    "latency": {"openvino": {"samples": 20, "mape": 4.2, "rest_ms": 0.1}},
    "predictor": {"type": "RBFHandler", "trained_on": 8, "predicted": 9, "left_out": {"spearman": 0.91}},
    "candidates": CANDIDATES,
    "commands": [["Use", "razordeploy export"]],
    "versions": {"razordeploy": "0.1.0"},
}


def test_the_front_is_what_nothing_beats():
    rng = random.Random(0)
    points = [(rng.choice([1.0, 2.0, 3.0, 4.0]), rng.choice([1.0, 2.0, 3.0, 4.0, 5.0])) for _ in range(30)]
    front = front_indices(points)
    for i, (cost, value) in enumerate(points):
        beaten = any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
        assert (i in front) <= (not beaten)
        if not beaten:
            assert (cost, value) in [points[j] for j in front]
    scored = [Scored(subnet={"a": i}, score=value, costs={"macs": cost}) for i, (cost, value) in enumerate(points)]
    assert [one.subnet["a"] for one in pareto_front(scored, "macs")] == front


def test_plots_of_wide_ranges_and_of_single_points():
    assert pareto_plot([(1.0, 1.0), (1000.0, 2.0)]).x.logarithmic
    one = pareto_plot([(3.0, 90.0)], [(0, "subnet 0")])
    assert one.others == ""
    assert one.tags[0].text == "subnet 0"
    assert pareto_plot([]).front == ""


def test_names_do_not_cover_each_other():
    points = [(1.0, 80.0), (1.02, 80.1), (1.04, 80.0), (9.0, 90.0), (9.5, 90.0), (5.0, 60.0)]
    tags = pareto_plot(points, [(i, f"engine {i}") for i in range(len(points))]).tags
    assert [tag.line for tag in tags] == [0, -1, 1, 0, -1, 0]
    assert [tag.before for tag in tags] == [False, False, False, True, True, False]


def test_the_page_names_the_chosen_subnet_and_escapes_what_it_shows():
    page = render_search(REPORT)
    assert "subnet 1, chosen" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page.replace("<b><", "")
    assert "ValueError: &lt;boom&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<svg") == 2


def test_words():
    assert sentence(REPORT) == "top1 92.50 at 0.21 ms on openvino: the best of 4 evaluated subnets, of 10^12"
    view = search_view(REPORT)
    facts = dict(view["facts"])
    assert facts["candidates"] == "4 evaluated, 1 failed, 2 of them known from an earlier run"
    assert facts["limits"] == "macs at most 4 M"
    assert "predicted 0.2 ms, measured 0.21 ms" in facts["latency on openvino"]
    assert "0.91" in facts["predictor"]
    assert [row["name"] for row in view["front"]] == ["subnet 1"]
    failed = copy.deepcopy(REPORT)
    failed.update(passed=False, failures=["latency@openvino: measured 9 ms"], warnings=["kept as x"])
    page = render_search(failed)
    assert "✗ FAILED" in page
    assert "measured 9 ms" in page
    assert "kept as x" in page
