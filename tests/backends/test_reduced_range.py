"""Half-range weights: the grid, and an engine that is right where products are added up in 16 bits."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import razordeploy as rd
from razordeploy.backends.registry import find_backend
from razordeploy.capture.export import capture
from razordeploy.cli.inspect import has_vnni
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.errors import RecipeError
from razordeploy.quantization.compare import sqnr_db
from razordeploy.quantization.qconfig import settings_for

CHILD = """
import sys, numpy as np, razordeploy as rd
np.save(sys.argv[3], rd.load_engine(sys.argv[1])(np.load(sys.argv[2])))
"""


def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.abs_()  # sums of pairs of large products, which 16 bits cannot hold
    return model


def weight_schemes(backend, **quantize):
    found = find_backend(backend)
    captured = capture(net(), (torch.rand(2, 8, 8, 8),))
    plan = found.plan(captured, settings_for(found.spec, QuantizeConfig.parse(quantize, "test")))
    return {p.scheme for p in plan.points if p.kind == "weight"}, {p.scheme for p in plan.points if p.kind != "weight"}


@pytest.mark.parametrize("backend", ("openvino", "onnxruntime", "torch_native"))
def test_weights_have_half_the_range_and_activations_all_of_it(backend):
    weights, activations = weight_schemes(backend, reduced_range=True)
    assert {(s.qmin, s.qmax) for s in weights} == {(-63, 63)}
    assert {s.levels for s in activations} == {256}
    assert {s.qmax for s in weight_schemes(backend)[0]} == {127}


def test_narrower_weights_stay_as_they_are():
    coarse = {"global_qconfig": {"w_qscheme": {"bit": 4}}}
    assert {s.bits for s in weight_schemes("academic", reduced_range=True, **coarse)[0]} == {4}
    with pytest.raises(RecipeError, match="True or False for 'quantize.reduced_range'"):
        QuantizeConfig.parse({"reduced_range": 7}, "test")


def test_engine_is_right_without_vnni(tmp_path):
    x = torch.rand(16, 8, 8, 8)
    np.save(tmp_path / "x.npy", x.numpy())
    with torch.inference_mode():
        expected = net()(x)
    found = {}
    for reduced in (True, False):
        options = {"backend": "openvino", "quantize": {"reduced_range": reduced}, "out_dir": tmp_path / str(reduced)}
        artifact = rd.ptq(net(), x, example_inputs=(x[:2],), **options)
        command = [sys.executable, "-c", CHILD, str(artifact.path), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
        subprocess.run(command, check=True, env={**os.environ, "DNNL_MAX_CPU_ISA": "AVX2"})
        found[reduced] = sqnr_db(expected, torch.from_numpy(np.load(tmp_path / "y.npy")))
    assert found[True] > 30
    assert found[True] > found[False] + 6, "full-range weights saturate"


def test_doctor_knows_a_limited_library(monkeypatch):
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    assert has_vnni(["avx2", "avx512_vnni"]) and not has_vnni(["avx2"])
    for limit, there in (("AVX2", False), ("AVX512_CORE", False), ("AVX512_CORE_VNNI", True), ("AVX2_VNNI", True)):
        monkeypatch.setenv("DNNL_MAX_CPU_ISA", limit)
        assert has_vnni(["avx2", "avx512_vnni"]) is there
