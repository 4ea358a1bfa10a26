"""Code of a backend's YAML that runs its engine without razordeploy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import razordeploy as rd
from razordeploy.artifact import TensorSpec
from razordeploy.backends.registry import find_backend
from razordeploy.backends.usage import usage_text
from razordeploy.config.backend_spec import BackendSpec
from razordeploy.report.write import read_report

INPUTS = [TensorSpec(name="x", shape=(None, 3), dtype="float32"), TensorSpec(name="ids", shape=(2, 4), dtype="int64")]


def filled(usage, tmp_path, files=None):
    spec = BackendSpec(name="b", summary="", extra="none", usage=usage)
    return usage_text(spec, tmp_path, files or {"engine": "it's.bin"}, INPUTS, batch=2)


def test_what_is_filled_in(tmp_path):
    assert eval(filled("{engine}", tmp_path)) == (tmp_path / "it's.bin").as_posix()
    arrays = eval(filled("{arrays}", tmp_path), {"np": np})
    assert [(a.shape, str(a.dtype)) for a in arrays] == [((2, 3), "float32"), ((2, 4), "int64")]
    assert eval(filled("{feed}", tmp_path), {"np": np}).keys() == {"x", "ids"}
    tensors = eval(filled("[{tensors}]", tmp_path), {"torch": torch})
    assert [(t.shape, t.dtype) for t in tensors] == [((2, 3), torch.float32), ((2, 4), torch.int64)]


def test_no_usage_no_code(tmp_path):
    assert filled("", tmp_path) == ""


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_the_code_of_the_report_runs_the_engine(name, tmp_path, capsys):
    pytest.importorskip(name, reason=f"the engine is of {name}")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    images = torch.randn(32, 3, 8, 8)
    artifact = rd.ptq(model, [images], example_inputs=(images[:2],), backend=name, out_dir=tmp_path)
    entry = read_report(tmp_path)["backends"][name]
    scope: dict = {}
    exec(compile(entry["usage"], "<usage>", "exec"), scope)
    assert capsys.readouterr().out == "[(1, 5)]\n"
    found = list(scope["outputs"].values()) if hasattr(scope["outputs"], "values") else scope["outputs"]
    np.testing.assert_array_equal(found[0], rd.load_engine(artifact)(np.zeros((1, 3, 8, 8), np.float32)))
    assert find_backend(name).spec.usage
    # The rest of what the page is drawn from, of a real run.
    assert [op["op"] for op in entry["ops"]] == ["conv2d", "relu", "reshape", "linear"]
    assert [op["state"] for op in entry["ops"]] == ["int8", "fused", "moves", "int8"]
    assert {s["role"] for s in entry["scheme"]} == {"activation", "weight"}
    assert read_report(tmp_path)["inputs"] == [{"name": "input", "shape": [None, 3, 8, 8], "dtype": "float32"}]
