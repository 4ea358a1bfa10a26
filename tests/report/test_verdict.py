"""The sentence at the head of the page."""

import pytest

from razordeploy.report.verdict import sentence
from tests.report.conftest import backend


def report_of(**backends):
    return {"schema_version": 1, "model": "m", "created": "2026-01-31", "backends": backends}


FAILED = {"passed": False, "gap": {"float_to_engine": 3.2}}
ERROR = {"passed": False, "error": "not installed"}


@pytest.mark.parametrize(
    ("backends", "words"),
    [
        ({}, "Nothing was checked: no backend was run."),
        (
            {"a": backend()},
            "Passed: the int8 model loses 0.12 points of top1 (limit 1); int8 runs at 2.37x the speed of float.",
        ),
        (
            {"a": backend(gap=-0.3, speedup=0.871)},
            "Passed: the int8 model loses nothing of the float model's top1; "
            "int8 runs at 0.87x the speed of float, which is slower.",
        ),
        (
            {"a": backend(gap=0.004, speedup=None)},
            "Passed: the int8 model loses nothing of the float model's top1.",
        ),
        (
            {"a": backend(gap=0.1), "b": backend(gap=0.3, speedup=1.5)},
            "Passed: the int8 models lose at most 0.30 points of top1 (b, limit 1); "
            "int8 runs at 2.37x (a) and 1.50x (b) the speed of float.",
        ),
        (
            {name: backend(gap=0, speedup=speed) for name, speed in (("a", 1.5), ("b", 0.5), ("c", 2))},
            "Passed: the int8 models lose nothing of the float model's top1; "
            "int8 runs at 0.50x (b) to 2.00x (c) the speed of float.",
        ),
        (
            {"a": backend(gap=0.1, limits={}), "b": {"passed": True}},
            "Passed: the int8 models lose at most 0.10 points of top1 (a); accuracy was not measured on b; "
            "int8 runs at 2.37x (a) the speed of float.",
        ),
        ({"a": {"passed": True}}, "Passed: no check failed, but accuracy was not measured."),
        (
            {"a": backend() | FAILED, "b": backend() | FAILED},
            "Not passed: a and b lose 3.20 points of top1, over the limit of 1.",
        ),
        (
            {"a": backend() | FAILED, "b": backend(), "c": ERROR, "d": ERROR},
            "Not passed: a loses 3.20 points of top1, over the limit of 1; c and d made no engines.",
        ),
        ({"a": backend(passed=False, failures=["no int8 at all"])}, "Not passed: a failed: no int8 at all."),
        ({"a": backend(passed=False)}, "Not passed: a failed a check."),
    ],
)
def test_sentence(backends, words):
    assert sentence(report_of(**backends)) == words


def test_an_own_metric_is_named():
    entry = backend()
    entry["metrics"] = {point: {"samples": 5, "mAP": 30.0} for point in entry["metrics"]}
    assert "points of mAP" in sentence(report_of(a=entry))
