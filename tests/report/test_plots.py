"""Paths and places of the plots."""

import itertools
import math
import random
import re

import numpy as np
import pytest

from razordeploy.report import plots
from razordeploy.report.axis import axis

NUMBER = r"(-?\d+)"


def dots(path):
    found = re.findall(rf"M{NUMBER} {NUMBER}h0", path)
    assert "".join(f"M{x} {y}h0" for x, y in found) == path
    return [(int(x), int(y)) for x, y in found]


def test_layers_are_placed_in_order_and_by_value():
    values = [20.0, 40.0, 10.0, 30.0]
    found = plots.layers_plot(values, ["a", "b", "c", "d"], worst=[2], scale=axis(10, 40))
    assert dots(found.dots) == [(125, 667), (375, 0), (875, 333)]
    assert dots(found.worst) == [(625, 1000)]
    assert found.line == "M125 667L375 0L625 1000L875 333"
    assert [(m.left, m.number) for m in found.marks] == [(62.5, 1)]


@pytest.mark.parametrize("seed", range(20))
def test_marks_keep_apart_inside_and_in_order(seed):
    draw = random.Random(seed)
    count = draw.choice([1, 3, 40, 400])
    values = [draw.uniform(0, 40) for _ in range(count)]
    # Neighbours at either end are the hard case.
    worst = draw.choice([list(range(min(6, count))), list(range(max(0, count - 6), count))])
    draw.shuffle(worst)
    found = plots.layers_plot(values, ["m"] * count, worst, plots.decibel_axis(values))
    by_place = sorted(found.marks, key=lambda mark: mark.left)
    assert [worst[mark.number - 1] for mark in by_place] == sorted(worst)
    lefts = [mark.left for mark in by_place]
    assert all(b - a >= 6.49 for a, b in itertools.pairwise(lefts))
    assert 3.24 <= min(lefts) <= max(lefts) <= 96.76


def test_labels_below_have_room_and_do_not_overlap():
    modules = [f"backbone.layers.{i}.{name}" for i in range(12) for name in ("qkv", "proj", "fc1", "fc2")]
    found = plots.layers_plot([1.0] * 48, modules, [], axis(0, 2))
    inner, outer = found.slots
    assert [slot.text for slot in inner] == [str(i) for i in range(12)]
    assert [(slot.text, slot.left, slot.width) for slot in outer] == [("backbone.layers", 0, 100)]
    for a, b in itertools.pairwise(inner):
        assert a.left + a.width <= b.left + 0.02


def test_a_label_without_room_is_left_out():
    modules = [f"a_rather_long_name_{i}.conv" for i in range(40)]
    inner, outer = plots.layers_plot([1.0] * 40, modules, [], axis(0, 2)).slots
    assert inner == outer == ()


def test_the_decibel_axis_holds_all_and_is_never_a_point():
    found = plots.decibel_axis([30.1, 30.2])
    assert found.high - found.low >= 4
    assert found.low <= 30.1 < 30.2 <= found.high
    assert plots.decibel_axis([]).low < plots.decibel_axis([]).high
    assert plots.decibel_axis([-8, 40]).low <= -8


def test_the_latency_curve_is_the_distribution():
    shake = random.Random(1)
    samples = [1 + shake.expovariate(2) for _ in range(5000)]
    scale = axis(0, 6, whole=False)
    known = [(p, float(np.percentile(samples, p))) for p in (50, 90, 99)]
    found = plots.latency_curve(samples, known, scale)
    steps = re.findall(rf"H{NUMBER}V{NUMBER}", found.line)
    assert 150 <= len(steps) <= 200
    for x, y in steps:
        share = np.mean(np.asarray(samples) <= (int(x) + 0.5) / 1000 * 6)
        # 200 steps, and places in thousandths of the axis.
        assert abs(share - (1 - int(y) / 1000)) < 0.015
    for (x, y), (share, milliseconds) in zip(dots(found.dots), known, strict=True):
        assert x == pytest.approx(milliseconds / 6 * 1000, abs=0.6)
        assert y == 1000 - 10 * share


def test_calls_beyond_the_axis_end_the_curve_at_its_edge():
    found = plots.latency_curve([1.0, 2.0, 50.0], [], axis(0, 4, whole=False))
    assert found.line == "M250 1000H250V667H500V333H1000"


def test_without_samples_the_percentiles_are_joined():
    found = plots.latency_curve([], [(50, 1.0), (90, 2.0), (99, 4.0)], axis(0, 4, whole=False))
    assert found.line == "M250 500L500 100L1000 10"
    assert plots.latency_curve([], [(50, 1.0)], axis(0, 4)).line == ""


def test_the_time_axis():
    assert plots.latency_axis([]) is None
    assert plots.latency_axis([{}, {"p50": None}]) is None
    even = plots.latency_axis([{"p50": 1.0, "p99": 2.0}, {"p50": 0.5, "p99": 1.0}])
    assert (even.low, even.logarithmic) == (0, False)
    assert even.high == pytest.approx(2.6)
    spread = plots.latency_axis([{"p50": 0.1, "p99": 6.0}])
    assert spread.logarithmic
    assert spread.low < 0.1 < 6 < spread.high


@pytest.mark.parametrize(
    ("value", "whole", "percent"),
    [(1, 4, 25), (5, 4, 100), (-1, 4, 0), (None, 4, None), (math.nan, 4, None), (1, 0, None), (1, math.inf, None)],
)
def test_share(value, whole, percent):
    assert plots.share(value, whole) == percent
