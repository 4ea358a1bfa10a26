import copy

import pytest

from razordeploy.errors import UsageError
from razordeploy.report.schema import SCHEMA_VERSION, check_report, gaps, lookup, passed

# What other programs read: (path below a backend, its keys).
CONTRACT = {
    "metrics": {"float", "simulated", "engine"},
    "gap": {"float_to_simulated", "simulated_to_engine", "float_to_engine"},
    "coverage": {"planned", "int8", "float"},
    "parity": {"max_abs", "sqnr_db", "steps"},
    "latency_ms": {"float", "engine"},
    "size_bytes": {"float", "engine"},
    "calibration": {"samples", "seconds"},
}


def test_the_contract_is_accepted_and_each_field_of_it_is_known(report):
    check_report(report)
    assert SCHEMA_VERSION == 1
    entry = report["backends"]["openvino"]
    for field, keys in CONTRACT.items():
        assert set(entry[field]) == keys
        for key in keys:
            broken = copy.deepcopy(report)
            broken["backends"]["openvino"][field][key] = object()
            with pytest.raises(UsageError, match=rf"at report\.backends\.openvino\.{field}\.{key}, got object"):
                check_report(broken)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r.update(modell="x"), "unknown field 'modell' in report; did you mean 'model'"),
        (lambda r: r.pop("created"), "report has no 'created'"),
        (lambda r: r["backends"]["openvino"].pop("passed"), "backends.openvino has no 'passed'"),
        (lambda r: r["backends"]["openvino"].update(passed=1), "expected bool at .*passed, got int"),
        (lambda r: r["backends"]["openvino"].update(speedup=True), "expected .*float.* at .*speedup, got bool"),
        (lambda r: r["backends"]["openvino"]["coverage"]["float"][1].pop("reason"), r"float\[1\] has no 'reason'"),
        (lambda r: r["backends"]["openvino"]["gap"].update(float_to_engin=1), "did you mean 'float_to_engine'"),
        (lambda r: r["backends"]["openvino"]["latency_ms"]["engine"].update(p95=1), "unknown field 'p95'"),
        (lambda r: r.update(warnings="one"), "at report.warnings, got str"),
        (lambda r: r.update(backends=[]), "at report.backends, got list"),
    ],
)
def test_a_wrong_field_is_named(report, edit, message):
    edit(report)
    with pytest.raises(UsageError, match=message):
        check_report(report)


def test_fields_beside_the_contract_are_checked_too(report):
    entry = report["backends"]["openvino"]
    assert {"ops", "scheme", "benchmark", "usage"} <= entry.keys()
    for edit, message in (
        (lambda e: e["ops"][0].pop("state"), r"ops\[0\] has no 'state'"),
        (lambda e: e["ops"][0].update(planned=1), r"expected bool at .*ops\[0\]\.planned, got int"),
        (lambda e: e["scheme"][0].update(tensor=3), "did you mean 'tensors'"),
    ):
        broken = copy.deepcopy(report)
        edit(broken["backends"]["openvino"])
        with pytest.raises(UsageError, match=message):
            check_report(broken)
    report["inputs"][0]["shape"] = [None, "3"]
    with pytest.raises(UsageError, match=r"expected int at report\.inputs\[0\]\.shape\[1\], got str"):
        check_report(report)


@pytest.mark.parametrize(
    ("keys", "found"),
    [(("a", "b"), 1), (("a",), {"b": 1}), (("a", "c"), None), (("x", "y"), None), (("a", "b", "c"), None), ((), None)],
)
def test_lookup(keys, found):
    part = {"a": {"b": 1}}
    assert lookup(part, *keys) == (found if keys else part)


def test_numbers_may_be_missing(report, failed_backend):
    report["backends"]["openvino"]["speedup"] = None
    report["backends"]["openvino"]["metrics"]["engine"]["top1"] = None
    report["backends"]["tensorrt"] = failed_backend
    report["seed"] = None
    check_report(report)


def test_gaps_are_what_was_lost():
    metrics = {"float": {"top1": 91.5}, "simulated": {"top1": 91.0}, "engine": {"top1": 91.25}}
    assert gaps(metrics) == {"float_to_simulated": 0.5, "simulated_to_engine": -0.25, "float_to_engine": 0.25}
    assert gaps({"float": {"top1": 91.5}, "engine": {"top1": None}}) == dict.fromkeys(gaps(metrics))
    assert gaps({"float": {"mAP": 3.0}, "engine": {"mAP": 1.0}}, "mAP")["float_to_engine"] == 2.0


def test_passed_needs_every_backend(report, failed_backend):
    assert passed(report)
    report["backends"]["openvino"]["passed"] = False
    assert not passed(report)
    report["backends"] = {"tensorrt": failed_backend | {"passed": True}}
    assert not passed(report)
    report["backends"] = {}
    assert not passed(report)
