"""Engines that compute something else than was planned are found, and built with the operations at fault in float."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import razordeploy as rd
from razordeploy import each_backend
from razordeploy.backends.registry import find_backend
from razordeploy.errors import BackendError
from razordeploy.validation import is_astray

pytest.importorskip("onnxruntime")


def _net():
    torch.manual_seed(0)
    layers = [layer for _ in range(6) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 3)).eval()


@pytest.fixture
def wrong(monkeypatch):
    """``wrong(nodes, always, refuse)``: an ONNX Runtime whose engines answer ``always`` more, and 1 for each node in
    int8, or with ``refuse`` cannot be loaded then.
    """
    backend = find_backend("onnxruntime")

    def install(nodes, always=0, refuse=False):
        errors = {}

        def export(job):
            errors[job.out_dir] = always + sum(op.int8 and op.node in nodes for op in job.plan.ops)
            return backend.export(job)

        def load(folder, files, role, threads):
            if refuse and role == "engine" and errors.get(folder):
                raise BackendError("a kernel is missing")
            runner = backend.load(folder, files, role, threads)
            if role == "engine" and errors.get(folder):
                run = type(runner).__call__
                kind = type("Wrong", (type(runner),), {"__call__": lambda self, *x: run(self, *x) + errors[folder]})
                runner.__class__ = kind
            return runner

        monkeypatch.setattr(each_backend, "find_backend", lambda name: replace(backend, export=export, load=load))

    return install


def _ptq(folder):
    data = [torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    artifact = rd.ptq(_net(), data, example_inputs=(data[0],), backend="onnxruntime", out_dir=folder)
    report = json.loads((folder / "report.json").read_text())
    return artifact, report["backends"]["onnxruntime"], report["warnings"]


@pytest.mark.parametrize(
    "modules", [{"conv2d_3": "6"}, {"conv2d": "0", "conv2d_5": "10", "linear": "13"}], ids=["one", "three"]
)
def test_what_is_at_fault_stays_in_float(tmp_path, wrong, modules):
    wrong(modules)
    _, entry, warnings = _ptq(tmp_path)
    assert entry["passed"] and not entry["astray"]
    said = {f["node"] for f in entry["coverage"]["float"] if "something else than was planned" in f["reason"]}
    assert said == set(modules.values())
    assert entry["coverage"]["int8"] == 7 - len(modules)
    assert any(all(node in line for node in modules) for line in warnings)


def test_an_engine_that_cannot_be_put_right_fails(tmp_path, wrong):
    wrong([], always=1)
    _, entry, _ = _ptq(tmp_path)
    assert not entry["passed"] and entry["astray"] and entry["coverage"]["int8"] == 7
    assert any("something else than what was planned" in line for line in entry["failures"])


def test_what_the_engine_refuses_stays_in_float(tmp_path, wrong):
    wrong(["conv2d_2"], refuse=True)
    _, entry, warnings = _ptq(tmp_path)
    assert entry["passed"] and entry["coverage"]["int8"] == 6
    assert any("conv2d_2" in line and "a kernel is missing" in line for line in warnings)


def test_an_engine_that_cannot_be_built_at_all_is_refused(tmp_path, wrong):
    wrong([], always=1, refuse=True)
    with pytest.raises(BackendError, match="a kernel is missing"):
        _ptq(tmp_path)


def test_a_right_engine_is_left_alone(tmp_path):
    _, entry, warnings = _ptq(tmp_path)
    assert entry["passed"] and entry["coverage"]["int8"] == 7
    assert not [line for line in warnings if "stays in float" in line]


def test_half_of_what_quantization_keeps_is_asked_of_an_engine():
    x = torch.linspace(-1, 1, 100).double()
    noise = torch.randn(100, generator=torch.Generator().manual_seed(0)).double()
    assert is_astray([x], [x + 0.01 * noise], [(x + 0.5 * noise).numpy()])
    assert not is_astray([x], [x + 0.01 * noise], [(x + 0.02 * noise).numpy()])  # more than quantization, but little
    assert not is_astray([x], [x + 0.5 * noise], [(x + noise).numpy()])  # the network amplifies whatever is rounded
    labels = torch.arange(4)
    assert not is_astray([labels], [labels], [labels.flip(0).numpy()])
