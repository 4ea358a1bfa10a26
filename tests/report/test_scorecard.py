"""The table that compares the backends."""

import pytest

from razordeploy.report.scorecard import scorecard
from tests.report.conftest import backend

PARITY = "engine against simulation"


def rows(**backends):
    report = {"schema_version": 1, "model": "m", "created": "2026-01-31", "backends": backends}
    return {row.label: row.entries for row in scorecard(report)}


def test_what_it_says():
    found = {label: (entry.text, entry.note) for label, (entry,) in rows(a=backend()).items()}
    assert found == {
        "verdict": ("passed", ""),
        "top1, int8": ("91.38 %", "float 91.50, simulated 91.44"),
        "accuracy lost": ("0.12 points", "limit 1"),
        "engine against simulation": ("0.800 steps", "largest difference 0.0312"),
        "int8 operations": ("29 of 31", "planned"),
        "speed": ("2.37x", "1.31 ms, float 3.11"),
        "size": ("296 kB", "float 1.10 MB"),
    }


def test_bars_of_one_row_share_a_scale():
    slow = {"float": {"p50": 6.22}, "engine": {"p50": 3.11}}
    a, b = rows(a=backend(), b=backend(latency_ms=slow))["speed"]
    assert [(bar.kind, bar.width) for bar in a.bars] == [("float", 50), ("int8", pytest.approx(21.06, abs=0.01))]
    assert [(bar.kind, bar.width) for bar in b.bars] == [("float", 100), ("int8", 50)]


def test_gaps_lie_on_one_scale_and_one_over_the_limit_is_told_apart():
    a, b = rows(a=backend(gap=-0.5), b=backend(gap=1.5))["accuracy lost"]
    assert (a.note, b.note) == ("a gain, limit 1", "limit 1")
    assert (a.tone, b.tone) == ("", "bad")
    assert (a.bullet.zero, a.bullet.limit) == (b.bullet.zero, b.bullet.limit)
    assert a.bullet.dot < a.bullet.zero < a.bullet.limit < b.bullet.dot < 100
    assert (a.bullet.held, b.bullet.held) == (True, False)


@pytest.mark.parametrize(
    ("changes", "label", "text", "note"),
    [
        ({"metrics": {}}, "top1, int8", "-", "not measured"),
        ({"gap": {"float_to_engine": None}}, "accuracy lost", "-", "not measured"),
        ({"limits": {}}, "accuracy lost", "0.12 points", "no limit"),
        ({"limits": {"max_drop": 0.0}, "gap": {"float_to_engine": 0.0}}, "accuracy lost", "0.00 points", "limit 0"),
        ({"parity": {"max_abs": 0.0, "sqnr_db": None}}, PARITY, "identical", "every output, bit for bit"),
        ({"parity": {"max_abs": 0.5, "steps": None}}, PARITY, "-", "largest difference 0.500"),
        ({"coverage": {"planned": 0, "int8": 0, "float": []}}, "int8 operations", "none", "none planned"),
        ({"latency_ms": {}}, "speed", "-", "not measured"),
        ({"latency_ms": {"engine": {"p50": 0.5}}, "speedup": None}, "speed", "0.500 ms", "p50, float not timed"),
        ({"speedup": 0.999}, "speed", "1.00x", "1.31 ms, float 3.11"),
        ({"speedup": 0.8}, "speed", "0.80x", "slower: 1.31 ms, float 3.11"),
        ({"size_bytes": {"engine": 0}}, "size", "0 B", ""),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(changes, label, text, note):
    (entry,) = rows(a=backend() | changes)[label]
    assert (entry.text, entry.note) == (text, note)


def test_a_backend_that_only_simulates_claims_no_int8():
    ops = [{"node": "n", "op": "conv2d", "module": "m", "state": "simulated"}]
    coverage = {"planned": 10, "int8": 0, "float": []}
    (entry,) = rows(a=backend(ops=ops, coverage=coverage))["int8 operations"]
    assert (entry.text, entry.note, entry.bars) == ("none", "10 simulated, no engine", ())


def test_a_failed_backend_has_an_empty_column(failed_backend):
    found = rows(a=backend(), b=failed_backend)
    assert (found["verdict"][1].text, found["verdict"][1].tone) == ("ERROR", "bad")
    assert {entries[1].text for label, entries in found.items() if label != "verdict"} == {"-"}
