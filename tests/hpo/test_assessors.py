"""The median rule against its definition, and curve fitting against curves whose end is known."""

from __future__ import annotations

import random
import statistics

import pytest

from razordeploy.hpo.assessors import CurveFitting, MedianStop
from razordeploy.hpo.curves import predicted


def test_the_median_rule():
    rule = MedianStop(maximise=True, start_step=2, min_trials=3)
    for values in ([0.0, 0.5, 1.0], [0.25, 0.75, 1.25], [0.5, 1.0, 1.5]):
        assert rule.stop(9, [0.0, 0.0]) is None  # too few have ended
        rule.ended(values)
    # Running means after two steps: 0.25, 0.5, 0.75.
    assert rule.stop(9, [0.0]) is None  # before start_step
    assert rule.stop(9, [0.49, 0.1]) is not None
    assert rule.stop(9, [0.5, 0.1]) is None  # the best counts, not the last
    # A trial that goes on longer than all others is held against their last means.
    assert rule.stop(9, [0.7] * 5) == "best of 5 steps 0.7, median of the 3 completed trials 0.75"


def test_less_can_be_better():
    rule = MedianStop(maximise=False, start_step=1, min_trials=1)
    rule.ended([1.0, 0.5])
    assert rule.stop(1, [1.1]) is not None
    assert rule.stop(1, [0.9]) is None


def test_the_rule_against_a_second_implementation():
    random.seed(3)
    done = [[random.random() for _ in range(8)] for _ in range(7)]
    rule = MedianStop(maximise=True, start_step=1, min_trials=1)
    for values in done:
        rule.ended(values)
    for _ in range(50):
        values = [random.random() for _ in range(random.randint(1, 8))]
        median = statistics.median(sum(one[: len(values)]) / len(values) for one in done)
        assert (rule.stop(0, values) is not None) == (max(values) < median)


def _curve(end, rate, steps):
    return [end * (1 - step**-rate) for step in range(1, steps + 1)]


@pytest.mark.parametrize(("end", "rate"), [(0.9, 0.8), (70.0, 0.6), (-1.0, 0.7)])
def test_a_curve_is_carried_on(end, rate):
    truth = _curve(end, rate, 50)[-1]
    first = _curve(end, rate, 12)
    seen = abs(truth - first[-1])
    assert abs(predicted(first, 50) - truth) < 0.6 * seen


def test_what_cannot_be_carried_on():
    assert predicted([0.5] * 8, 20) == 0.5
    assert predicted([0.1, float("nan"), 0.3], 20) is None


def test_curve_fitting_stops_the_hopeless_and_keeps_the_good():
    rule = CurveFitting(maximise=True, epoch_num=40, start_step=8, threshold=0.95)
    assert rule.stop(1, _curve(0.3, 1.0, 10)) is None  # nothing to compare with
    rule.ended(_curve(0.9, 1.0, 40))
    assert rule.stop(1, _curve(0.3, 1.0, 7)) is None
    assert "best so far" in rule.stop(1, _curve(0.3, 1.0, 10))
    assert rule.stop(1, _curve(0.95, 1.0, 10)) is None
    loss = CurveFitting(maximise=False, epoch_num=40, start_step=8)
    loss.ended([1 - v for v in _curve(0.9, 1.0, 40)])
    assert loss.stop(1, [1 - v for v in _curve(0.3, 1.0, 10)]) is not None
