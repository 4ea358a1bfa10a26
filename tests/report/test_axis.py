"""Ticks and places of the axes."""

import itertools
import math

import pytest

from razordeploy.report.axis import axis, log_axis

RANGES = [(0, 43.2), (0, 0.107), (-3, 28), (12.4, 12.9), (0, 728.3), (0, 1e-7), (-1e9, 3), (81.02, 81.03)]


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_ticks_are_round_evenly_apart_and_hold_the_values(low, high):
    found = axis(low, high)
    assert found.low <= low
    assert found.high >= high
    assert 2 <= len(found.ticks) <= 7
    steps = [b - a for a, b in itertools.pairwise(found.ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert min(abs(mantissa - round_) for round_ in (1, 2, 2.5, 5)) < 1e-6
    assert len({found.label(t) for t in found.ticks}) == len(found.ticks)


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_a_label_says_the_tick(low, high):
    found = axis(low, high)
    assert [float(found.label(t)) for t in found.ticks] == pytest.approx(found.ticks, abs=1e-12, rel=1e-5)


def test_places():
    found = axis(0, 50)
    assert [found.percent(v) for v in (0, 12.5, 50)] == [0, 25, 100]
    assert [found.percent(v) for v in (-1, 99)] == [0, 100]


def test_an_axis_that_need_not_end_at_a_tick():
    found = axis(0, 6.8, most=5, whole=False)
    assert (found.low, found.high, found.ticks) == (0, 6.8, (0, 2, 4, 6))


def test_one_value_has_an_axis():
    assert axis(5, 5).percent(5) == 0
    assert axis(0, 0).high > 0


def test_on_a_logarithmic_axis_equal_ratios_take_equal_room():
    found = log_axis(0.1, 1000)
    assert [found.percent(v) for v in (0.1, 1, 10, 100, 1000)] == [0, 25, 50, 75, 100]
    assert found.percent(0) == 0
    assert [found.label(t) for t in found.ticks] == ["0.1", "1", "10", "100", "1000"]


@pytest.mark.parametrize(("low", "high"), [(0.08, 7.7), (1, 1), (3, 4), (0.001, 9e6), (0.2, 0.9)])
def test_a_logarithmic_axis_has_few_ticks_inside(low, high):
    found = log_axis(low, high, most=5)
    assert len(found.ticks) <= 5
    assert all(found.low <= t <= found.high for t in found.ticks)
