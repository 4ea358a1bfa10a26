"""``razordeploy search`` with a limit on the latency of int8 engines, whose building is replaced by a formula."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_search import supernet  # noqa: F401

# A 3x3 convolution takes a millisecond, anything else a tenth; what is measured at the end may be slower.
ENGINES = """
import razordeploy.cli.search_latency as module


def build(self, subnet, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ms").write_text(str(sum(1.0 if choice == "three" else 0.1 for choice in subnet.values())))


def measure(self, folder):
    with open("measured", "a") as stream:
        stream.write("x")
    return float((folder / "ms").read_text())


def final(self, subnet, limit=0.0):
    return {factor} * sum(1.0 if choice == "three" else 0.1 for choice in subnet.values())


module.Engines.build, module.Engines.measure, module.Engines.__call__ = build, measure, final
"""
LIMITED = """
search["constraints"] = {"latency@onnxruntime": (0.0, 1.5)}
search["latency"] = dict(samples=12, seconds=0.1)
"""


def _report(folder):
    return json.loads((folder / "work" / "report.json").read_text())


@pytest.fixture
def recipe(supernet):  # noqa: F811
    return supernet(more=LIMITED)


def test_candidates_keep_to_a_predicted_latency(cli, recipe, tmp_path):
    before = ENGINES.replace("{factor}", "1.0")
    result = cli("search", recipe, "--work-dir", "work", before=before)
    assert result.code == 0, result.err
    report = _report(tmp_path)
    assert report["latency"]["onnxruntime"]["samples"] == 12
    assert report["latency"]["onnxruntime"]["mape"] < 5
    for one in report["candidates"]:
        true = sum(1.0 if choice == "three" else 0.1 for choice in one["subnet"].values())
        assert one["costs"]["latency@onnxruntime"] == pytest.approx(true, abs=0.15)
        assert true < 2
    assert report["chosen"]["measured_ms"]["onnxruntime"] <= 1.5
    assert report["pareto"]["costs"] == ["latency@onnxruntime", "macs"]
    assert "prediction off by" in result.out
    # The table is built once for a space.
    measured = len((tmp_path / "measured").read_text())
    assert measured == 36
    assert cli("search", recipe, "--work-dir", "work", before=before).code == 0
    assert len((tmp_path / "measured").read_text()) == measured


def test_an_engine_that_is_slower_than_predicted_fails_the_check(cli, recipe, tmp_path):
    result = cli("search", recipe, "--work-dir", "work", before=ENGINES.replace("{factor}", "10.0"))
    assert result.code == 1, result.err
    report = _report(tmp_path)
    assert not report["passed"]
    assert "which is outside [0, 1.5], and so are the" in report["failures"][0]
    assert result.out.splitlines()[-1].startswith("FAILED: ")
    assert (tmp_path / "work" / "fix_subnet.yaml").exists()


def test_limits_on_latency_that_nothing_keeps_to(cli, recipe):
    result = cli(
        *("search", recipe, "--work-dir", "work", "--set", "search.constraints={'latency@onnxruntime': (0.0, 0.01)}"),
        before=ENGINES.replace("{factor}", "1.0"),
    )
    assert result.code == 2
    assert "no subnet has latency@onnxruntime in [0, 0.01]: this space reaches" in result.error
    result = cli("search", recipe, "--set", "search.constraints={'latency@openvin': 1}")
    assert result.code == 2
    assert "openvino" in result.error
