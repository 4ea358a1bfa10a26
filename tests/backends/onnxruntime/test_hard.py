"""Hard-sigmoid and hard-swish in integer kernels: the engine computes what the simulation does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from razordeploy.capture.export import capture
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.quantization.plan import QParams
from razordeploy.quantization.qconfig import settings_for
from razordeploy.quantization.qparams import with_floor
from razordeploy.quantization.simulate import simulate
from razordeploy.quantization.statistics import collect, resolve

pytest.importorskip("onnxruntime", reason="needs onnxruntime")


class _Net(nn.Module):
    """A layer, the activation and a layer; ``twice``: something else reads what the activation reads."""

    def __init__(self, act, first, second, twice=False):
        super().__init__()
        self.first, self.act, self.second, self.twice = first, act, second, twice

    def forward(self, x):
        y = self.first(x)
        z = self.act(y)
        return self.second(z + y if self.twice else z)


def _conv(act, bias=True, **options):
    return _Net(act, nn.Conv2d(3, 8, 3, bias=bias), nn.Conv2d(8, 4, 1), **options)


def _linear(act):
    return _Net(act, nn.Linear(12, 8), nn.Linear(8, 4))


def _made(net, x, folder, change=lambda group, q: q, scale=4.0):
    """Kernels of the engine, its output and the simulation's; values reach ``scale`` times as far as a fresh net's."""
    from razordeploy.backends.onnx_passes.export import export_marked
    from razordeploy.backends.onnx_passes.qdq import quantized_model
    from razordeploy.backends.onnxruntime.backend import BACKEND
    from razordeploy.backends.onnxruntime.engine import ONNXRuntimeRunner
    from razordeploy.backends.onnxruntime.rewrite import rewrite

    net.first.weight.data.mul_(scale)
    captured = capture(net.eval(), (x,), dynamic_batch=True)
    plan = BACKEND.plan(captured, settings_for(BACKEND.spec, QuantizeConfig()))
    params = resolve(captured, plan, collect(captured, [plan], [(x,)]))
    params = {group: change(group, q) for group, q in params.items()}
    model = quantized_model(export_marked(captured, [plan], opset=20), plan, params, rewrite)
    ir.save(model, folder / "model.onnx")
    runner = ONNXRuntimeRunner(folder / "model.onnx", 1)
    with torch.no_grad():
        simulated = simulate(captured, plan, params)(x)
    kernels = Counter(f"{op.type} {op.precision}" for op in runner.runtime_ops() if op.type != "Reshape")
    return kernels, runner(x.numpy()), simulated.numpy(), plan


_IMAGE, _ROWS, _TOKENS = (2, 3, 10, 10), (6, 12), (2, 5, 12)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (lambda: _conv(nn.Hardswish()), _IMAGE),
        (lambda: _conv(nn.Hardswish(), bias=False), _IMAGE),
        (lambda: _linear(nn.Hardswish()), _ROWS),
        (lambda: _linear(nn.Hardswish()), _TOKENS),
        (lambda: _conv(nn.Hardsigmoid()), _IMAGE),
        (lambda: _conv(nn.Hardsigmoid(), bias=False), _IMAGE),
        (lambda: _linear(nn.Hardsigmoid()), _ROWS),
    ],
    ids=["conv swish", "conv swish, no bias", "rows swish", "tokens swish", "conv", "conv, no bias", "rows"],
)
@pytest.mark.parametrize("scale", [0.5, 12.0])
def test_all_in_integers(net, shape, scale, tmp_path):
    torch.manual_seed(0)
    kernels, found, simulated, plan = _made(net(), torch.randn(shape), tmp_path, scale=scale)
    assert all(op.int8 for op in plan.ops)
    assert not any(kind.endswith("f32") for kind in kernels), kernels
    step = np.ptp(simulated) / 255
    assert np.abs(found - simulated).max() < step


@pytest.mark.parametrize("factor", [0.7, 1.6])
def test_a_grid_that_training_moved(factor, tmp_path):
    """Of a hard-sigmoid it may reach beyond 1, and is clipped there; of a hard-swish's input it begins at -3 again."""
    torch.manual_seed(0)

    def scaled(group, q):
        return with_floor(replace(q, scale=q.scale * factor)) if "hard" in group or "conv" in group else q

    for act in (nn.Hardsigmoid(), nn.Hardswish()):
        kernels, found, simulated, _ = _made(_conv(act), torch.randn(_IMAGE), tmp_path, scaled, scale=12.0)
        assert not any(kind.endswith("f32") for kind in kernels), kernels
        assert np.abs(found - simulated).max() < np.ptp(simulated) / 255


def test_a_step_that_does_not_divide_three(tmp_path):
    """The function then runs in float between the pairs, and computes the same as the simulation."""
    torch.manual_seed(0)

    def off(group, q):
        return QParams(scale=q.scale * 1.01, zero_point=q.zero_point, scheme=q.scheme) if q.scheme.floor else q

    kernels, found, simulated, _ = _made(_conv(nn.Hardswish()), torch.randn(_IMAGE), tmp_path, off)
    assert any(kind.endswith("f32") for kind in kernels), kernels
    assert np.abs(found - simulated).max() < np.ptp(simulated) / 255


def test_float_where_something_else_reads_the_input(tmp_path):
    torch.manual_seed(0)
    _, found, simulated, plan = _made(_conv(nn.Hardswish(), twice=True), torch.randn(_IMAGE), tmp_path)
    (swish,) = (op for op in plan.ops if op.kind == "hardswish")
    assert not swish.int8 and "cannot begin at -3" in swish.reason
    assert np.abs(found - simulated).max() < np.ptp(simulated) / 255
