"""8-bit attention only where calibration data shows that it costs nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import razordeploy as rd
from razordeploy.backends.registry import find_backend
from razordeploy.capture.export import capture
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.quantization.compare import sqnr_db
from razordeploy.quantization.guard import costly_attention
from razordeploy.quantization.qconfig import settings_for
from razordeploy.quantization.qparams import fake_quantize
from razordeploy.quantization.statistics import collect, resolve

pytest.importorskip("openvino", reason="needs openvino")


class _Attention(nn.Module):
    """One head of width 8; ``sharpness`` scales the scores: a large one gives weights near 1."""

    def __init__(self, sharpness, written_out=True):
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 24), nn.Linear(8, 16)
        self.sharpness, self.written_out = sharpness, written_out

    def forward(self, x):
        q, k, v = self.qkv(x).split(8, -1)
        if not self.written_out:
            return self.out(nn.functional.scaled_dot_product_attention(q, k, v, scale=self.sharpness))
        return self.out((q @ k.transpose(-2, -1) * self.sharpness).softmax(-1) @ v)


def _planned(net, data):
    captured = capture(net, (data,))
    backend = find_backend("openvino")
    plan = backend.plan(captured, settings_for(backend.spec, QuantizeConfig.parse({}, "test")))
    params = resolve(captured, plan, collect(captured, [plan], [(data,)]))
    return captured, plan, params


def _net(sharpness, **options):
    torch.manual_seed(0)
    return _Attention(sharpness, **options).eval(), torch.randn(4, 64, 16)


def test_measure_against_the_formula():
    """SQNR of softmax(fq(q) fq(k)^T s) fq'd times fq(v), written out here in float64."""
    net, x = _net(0.3)
    captured, plan, params = _planned(net, x)
    reasons = costly_attention(captured, plan, params, {"attention_scores": 300.0, "attention_values": 300.0}, (x,))
    assert len(reasons) == 2
    grids = {p.node: params[p.group] for p in plan.points if p.kind == "activation"}
    qkv = net.qkv(x).detach()
    q, k, v = qkv.split(8, -1)
    exact = (q @ k.transpose(-2, -1) * 0.3).softmax(-1) @ v
    rq, rk, rv = fake_quantize(qkv, grids["linear"]).split(8, -1)
    softmax = next(p.node for p in plan.points if p.node.startswith("softmax"))
    weights = fake_quantize((rq @ rk.transpose(-2, -1) * 0.3).softmax(-1), grids[softmax])
    expected = sqnr_db(exact, weights @ rv)
    for reason in reasons.values():
        assert f"{expected:.0f} dB" in reason


def test_flat_weights_pass_and_sharp_ones_do_not():
    limits = {"attention_scores": 30.0, "attention_values": 30.0}
    for sharpness, costly in ((0.05, 0), (30.0, 2)):
        net, x = _net(sharpness)
        assert len(costly_attention(*_planned(net, x), limits, (x,))) == costly


@pytest.mark.parametrize("written_out", [True, False])
@pytest.mark.parametrize(("sharpness", "int8"), [(0.05, 4), (30.0, 2)])
def test_the_engine_runs_what_the_guard_lets_through(sharpness, int8, written_out, tmp_path):
    net, x = _net(sharpness, written_out=written_out)
    engine = rd.load_engine(rd.ptq(net, [x], example_inputs=(x,), backend="openvino", out_dir=tmp_path))
    coverage = engine.coverage()
    assert coverage.int8 == coverage.planned == int8, coverage.float_ops
    kept = [f for f in coverage.float_ops if f.op.startswith("attention_")]
    assert len(kept) == 4 - int8
    assert all("on calibration data" in f.reason for f in kept)
