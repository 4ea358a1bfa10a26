"""Noise of every layer, against the values of two runs held in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from razordeploy.capture.export import capture
from razordeploy.config.backend_spec import BackendSpec, OpRule, TensorRule
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.quantization.compare import compare_layers, sqnr_db
from razordeploy.quantization.placement import place
from razordeploy.quantization.qconfig import settings_for
from razordeploy.quantization.simulate import simulate
from razordeploy.quantization.statistics import collect, resolve

_SPEC = BackendSpec(
    name="made_up",
    summary="",
    extra="none",
    ops={"conv2d": OpRule(inputs=(0,), weight=1), "linear": OpRule(inputs=(0,), weight=1)},
    weight=TensorRule(signed=True, symmetric=True, per_channel=True),
)


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)

    def forward(self, x):
        y = F.relu(self.b(F.relu(self.a(x))))
        return self.fc(y.mean((2, 3))), y


class _All(fx.Interpreter):
    def run_node(self, n):
        self.seen = getattr(self, "seen", {})
        self.seen[n.name] = super().run_node(n)
        return self.seen[n.name]


def test_every_quantized_layer_in_order_with_the_noise_up_to_it():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    captured = capture(_Net().eval(), (x,))
    plan = place(captured, _SPEC, settings_for(_SPEC, QuantizeConfig()))
    tested = simulate(captured, plan, resolve(captured, plan, collect(captured, [plan], [(x,)])))
    layers, outputs, clean_outputs = compare_layers(captured, plan, tested, (x,))
    runs = [_All(captured.graph_module), _All(tested)]
    with torch.no_grad():
        for run in runs:
            run.run(x)
    assert [layer["module"] for layer in layers] == ["a", "b", "fc"]
    for layer in layers:
        clean, noisy = (run.seen[layer["node"]].double() for run in runs)
        noise = ((clean - noisy) ** 2).sum()
        assert layer["sqnr_db"] == pytest.approx(float(10 * torch.log10((clean**2).sum() / noise)), abs=1e-3)
    for ours, expected in ((outputs, tested(x)), (clean_outputs, captured.graph_module(x))):
        for output, wanted in zip(ours, expected, strict=True):
            torch.testing.assert_close(output, wanted)


def test_no_noise_and_no_signal_have_no_ratio():
    x = torch.randn(10)
    assert sqnr_db(x, x.clone()) is None
    assert sqnr_db(torch.zeros(3), torch.ones(3)) is None


def test_squares_beyond_float32():
    x = torch.tensor([1e25, -1e25])
    assert sqnr_db(x, 0.9 * x) == pytest.approx(20.0, abs=1e-5)
    assert math.isfinite(sqnr_db(x, x * 2))
