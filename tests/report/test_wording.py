import math

import pytest

from razordeploy.report import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (296_000, "296 kB"),
        (999_600, "1.00 MB"),
        (44.7e6, "44.7 MB"),
        (2.5e9, "2.50 GB"),
        (None, "-"),
    ],
)
def test_size(value, text):
    assert wording.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.3149, "1.31"),
        (13.149, "13.1"),
        (131.49, "131"),
        (2131.4, "2131"),
        (0.031249, "0.0312"),
        (0, "0"),
        (9.999, "10.0"),
        (-1.5, "-1.50"),
        (None, "-"),
        (math.nan, "-"),
        (1e-9, "1e-09"),
    ],
)
def test_significant(value, text):
    assert wording.significant(value) == text


@pytest.mark.parametrize("bad", ["\x1b[2J", "\x07", "\x9b31m", "\u202e", "\u200b", "\udcff", "\r", "\n"])
def test_plain_takes_out_what_acts_on_a_terminal(bad):
    text = wording.plain(f"a  b{bad}c")
    assert text.startswith("a  b")
    assert bad[0] not in text
    text.encode()


def test_plain_keeps_letters_of_every_language():
    assert wording.plain("café 模型 نموذج") == "café 模型 نموذج"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2026-01-31T12:00:00+00:00", "2026-01-31 12:00 UTC"),
        ("2026-01-31T23:30:00-02:00", "2026-02-01 01:30 UTC"),
        ("2026-01-31T12:00:00", "2026-01-31 12:00"),
        ("2026-01-31", "2026-01-31 00:00"),
        ("yesterday", "yesterday"),
    ],
)
def test_date(text, written):
    assert wording.date(text) == written


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [(81.034, "top1", "81.03 %"), (98.7, "top5", "98.70 %"), (30.0, "mAP", "30.00"), (None, "top1", "-")],
)
def test_only_what_is_a_percentage_by_contract_gets_the_sign(value, name, text):
    assert wording.with_unit(value, name) == text


@pytest.mark.parametrize(
    ("flags", "begins"),
    [
        (["avx2", "avx512_vnni", "amx_int8"], "yes (avx512_vnni, amx_int8)"),
        (["asimddp"], "yes (asimddp)"),
        (["avx2", "avx512f"], "no VNNI"),
        ([], "not known"),
    ],
)
def test_hardware(flags, begins):
    assert wording.hardware(flags).startswith(begins)


def test_the_number_of_samples_is_no_metric():
    entry = {"passed": True, "metrics": {"float": {"samples": 10, "mAP": 3.0}}}
    report = {"schema_version": 1, "model": "m", "created": "2026-01-31", "backends": {"a": entry}}
    assert wording.metric_name(report) == "mAP"
    entry["metrics"]["float"] = {"samples": 10}
    assert wording.metric_name(report) == "top1"


def test_rule_notes_are_told_once_a_rule():
    note = {"rule": "concat", "message": "its parts lie on different grids", "severity": "note"}
    entry = {
        "passed": True,
        "findings": [{"node": f"cat_{i}", **note} for i in range(5)]
        + [{"node": "conv", "rule": "grid", "message": "bad", "severity": "error"}],
    }
    assert wording.rule_notes(entry) == [
        "slower than need be, by the rule 'concat': its parts lie on different grids (cat_0, cat_1, cat_2, ...)"
    ]
    assert wording.rule_notes({"passed": True}) == []


def test_a_graph_without_engine():
    entry = {"passed": False, "exit_code": 3, "missing": "needs tensorrt", "failures": []}
    assert wording.verdict(entry) == "no engine"
    assert wording.stated_problems(entry) == ["no engine was built: needs tensorrt"]
    assert wording.verdict({**entry, "failures": ["loses too much"]}) == "FAILED"
