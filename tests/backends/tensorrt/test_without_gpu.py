"""Where no engine can be built: the graph is written, checked and measured, and the command that builds it is told."""

from __future__ import annotations

import copy
import shlex

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import razordeploy as rd
from razordeploy.backends.registry import find_backend
from razordeploy.capture.export import capture
from razordeploy.cli.measure import evaluate_paths
from razordeploy.conversion import ConvertJob, run_convert
from razordeploy.data.batch import Batch
from razordeploy.errors import MissingDependency
from razordeploy.job import PTQJob
from razordeploy.pipeline import run_ptq
from razordeploy.report.console import print_report
from razordeploy.report.html import render_html
from razordeploy.report.write import read_report
from razordeploy.source import ModelSource, OnnxSource


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = (nn.Conv2d(i, 16, 3, padding=1) for i in (3, 16, 16))
        self.head = nn.Linear(16, 16)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head((self.b(self.a(x).relu()) + x).relu().mean((2, 3)))


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr("razordeploy.backends.tensorrt.runtime.available", lambda name: False)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def job(model, images, folder, backends=("tensorrt",)):
    with torch.no_grad():
        labels = model(images).argmax(1)
    return PTQJob(
        backends=backends,
        work_dir=folder,
        calibration=lambda: [Batch((images,), None)],
        evaluation=lambda: [Batch((images,), labels)],
        model=copy.deepcopy(model),
        example_inputs=(images[:2],),
        benchmark_seconds=0.1,
    )


def test_what_is_written(no_gpu, model, images, tmp_path):
    result = run_ptq(job(model, images, tmp_path))
    artifact, entry = result.artifacts["tensorrt"], result.backends["tensorrt"]
    assert artifact.kind == "quantized"
    assert {"onnx", "onnx_float", "findings", "plan"} <= set(artifact.files)
    assert "engine" not in artifact.files
    onnx.checker.check_model(str(artifact.file("onnx")), full_check=True)
    assert set(entry["metrics"]) == {"float", "simulated"}
    assert set(entry["gap"]) == {"float_to_simulated"}
    assert entry["parity"]["steps"] <= 1
    assert (entry["coverage"]["planned"], entry["coverage"]["int8"]) == (6, 0)
    assert entry["findings"] == entry["failures"] == []
    assert "latency_ms" not in entry
    assert (entry["passed"], entry["exit_code"]) == (False, 3)
    assert "pip install 'razordeploy[tensorrt]'" in entry["missing"]
    words = shlex.split(entry["build"])
    assert words[:2] == ["trtexec", f"--onnx={artifact.file('onnx')}"]
    assert "--optShapes=x:1x3x8x8" in words


def test_other_backends_are_not_held_up(no_gpu, model, images, tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    artifacts = rd.ptq(
        copy.deepcopy(model), [images], example_inputs=(images[:2],), backend=["tensorrt", "onnxruntime"],
        out_dir=tmp_path,
    )  # fmt: skip
    assert {name: a.kind for name, a in artifacts.items()} == {"tensorrt": "quantized", "onnxruntime": "engine"}
    report = read_report(tmp_path)
    assert report["backends"]["onnxruntime"]["passed"]
    print_report(report, tmp_path, seconds=1)
    told = capsys.readouterr().out
    assert "no engine" in told
    assert report["backends"]["tensorrt"]["build"] in told
    assert "trtexec" in render_html(report, tmp_path)


def test_loading_says_what_is_missing(no_gpu, model, images, tmp_path):
    artifact = run_ptq(job(model, images, tmp_path)).artifacts["tensorrt"]
    with pytest.raises(MissingDependency, match=r"holds the graph, no engine: .*pip install 'razordeploy\[tensorrt\]'"):
        rd.load_engine(artifact)
    with pytest.raises(MissingDependency, match="holds the graph"):
        evaluate_paths([artifact.path], recipe=None, overrides={}, threads=0)


def test_too_much_lost_in_simulation_fails(no_gpu, model, images, tmp_path):
    asked = job(model, images, tmp_path)
    with torch.no_grad():
        worst = model(images).argmin(1)
    asked.evaluation = lambda: [Batch((images,), worst)]
    entry = run_ptq(asked).backends["tensorrt"]
    assert entry["failures"] == []  # nothing to lose: the float model is always wrong here
    asked.evaluation = lambda: [Batch((images,), model(images).argmax(1).detach())]
    object.__setattr__(asked.deploy, "max_drop", -1.0)
    assert "the simulated model loses" in run_ptq(asked).backends["tensorrt"]["failures"][0]


@pytest.mark.parametrize("quantized", [False, True])
def test_convert(no_gpu, model, images, tmp_path, quantized):
    if quantized:
        made = run_ptq(job(model, images, tmp_path / "ptq")).artifacts["tensorrt"]
        source = OnnxSource.open(made.file("onnx"), job(model, images, tmp_path).deploy)
    else:
        source = ModelSource.of(capture(copy.deepcopy(model), (images[:2],)), job(model, images, tmp_path).deploy)
    result = run_convert(
        ConvertJob(
            backends=["tensorrt"],
            work_dir=tmp_path / "out",
            calibration=lambda: [Batch((images,), None)],
            source=source,
        )
    )
    artifact, entry = result.artifacts["tensorrt"], result.backends["tensorrt"]
    assert artifact.kind == ("quantized" if quantized else "float")
    assert entry["findings"] == entry["failures"] == []
    assert entry["exit_code"] == 3
    assert "trtexec" in entry["build"]


def test_the_graph_runs_as_it_is_written(no_gpu, model, images, tmp_path):
    artifact = run_ptq(job(model, images, tmp_path)).artifacts["tensorrt"]
    backend = find_backend("tensorrt")
    runner = backend.load(artifact.path, artifact.files, "onnx_float", 1)
    with torch.no_grad():
        np.testing.assert_allclose(runner(images.numpy()), model(images).numpy(), atol=1e-5)
    assert runner.runtime_ops() == []
