"""What is said of an engine where there are no labels to measure it on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import razordeploy as rd
from razordeploy.validation import all_finite, doubt, fidelity


def test_fidelity_is_that_of_the_worst_output():
    in_float = (torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0]]))
    found = fidelity(in_float, (np.array([[3.0, 4.5]], np.float32), np.array([[1.0]], np.float32)))
    assert found == {"max_abs": 0.5, "sqnr_db": pytest.approx(20.0), "samples": 1}
    assert fidelity(in_float, tuple(x.numpy() for x in in_float))["sqnr_db"] is None


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"fidelity": {"sqnr_db": 3.0, "samples": 8}}, True),
        ({"fidelity": {"sqnr_db": 30.0, "samples": 8}}, False),
        ({"fidelity": {"sqnr_db": None, "samples": 8}}, False),
        ({"fidelity": {"sqnr_db": 3.0, "samples": 8}, "metrics": {}}, False),
    ],
)
def test_doubt_only_where_no_labels_tell(entry, said):
    lines = doubt("openvino", entry)
    assert bool(lines) == said
    assert all("3.0 dB" in line and "8 calibration samples" in line for line in lines)


def test_not_finite():
    assert all_finite((np.ones(2), np.zeros(1)))
    assert not all_finite(np.array([1.0, np.nan]))
    assert not all_finite((np.ones(2), np.array([np.inf])))


def test_a_report_holds_the_engine_against_the_float_model(tmp_path):
    pytest.importorskip("openvino", reason="the engine is OpenVINO's")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 4))
    x = torch.randn(8, 3, 8, 8)
    engine = rd.load_engine(rd.ptq(model, [x], example_inputs=(x,), backend="openvino", out_dir=tmp_path))
    report = json.loads((tmp_path / "report.json").read_text())
    noise = engine(x.numpy()) - model(x).detach().numpy()
    ratio = 10 * np.log10((model(x).detach().numpy() ** 2).sum() / (noise**2).sum())
    assert report["backends"]["openvino"]["fidelity"]["sqnr_db"] == pytest.approx(ratio, abs=0.1)
    assert not [w for w in report["warnings"] if "far from" in w]
