"""The simulation against integer kernels written in numpy and int64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razordeploy.capture.export import capture
from razordeploy.config.backend_spec import BackendSpec, OpRule, TensorRule
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.quantization.placement import place
from razordeploy.quantization.qconfig import settings_for
from razordeploy.quantization.qparams import fake_quantize, quantize
from razordeploy.quantization.simulate import simulate
from razordeploy.quantization.statistics import collect, resolve

_OPS = {
    **{k: OpRule(inputs=(0,), weight=1) for k in ("conv1d", "conv2d", "conv3d", "depthwise_conv2d", "linear")},
    **{f"conv_transpose{r}d": OpRule(inputs=(0,), weight=1, axis=1) for r in (1, 2, 3)},
    "matmul": OpRule(inputs=(0, 1)),
}


def _quantized(model, *shapes, bias="float", same_grid=()):
    torch.manual_seed(0)
    inputs = tuple(torch.randn(s) for s in shapes)
    spec = BackendSpec(
        name="made_up", summary="", extra="none", ops=_OPS, bias=bias, same_grid=same_grid,
        weight=TensorRule(signed=True, symmetric=True, symmetric_range=True, per_channel=True),
    )  # fmt: skip
    captured = capture(model.eval(), inputs)
    plan = place(captured, spec, settings_for(spec, QuantizeConfig()))
    params = resolve(captured, plan, collect(captured, [plan], [inputs]))
    return captured, plan, params, inputs


def _exact(op, x, weight, captured, plan, params):
    """``op`` on int64 values, then one multiplication by the scales in float64."""
    xq = params[next(p.group for p in plan.points if p.kind == "activation")]
    wq = params[next(p.group for p in plan.points if p.kind == "weight")]
    x_int = quantize(x, xq).long() - xq.zero_point
    w_int = quantize(weight, wq).long()
    return op(x_int.double(), w_int.double()), xq.scale.double() * wq.scale.double()


_CASES = {
    "conv1d": (nn.Conv1d(4, 6, 3, 2, 1), (2, 4, 9)),
    "conv2d": (nn.Conv2d(4, 6, 3, 2, 1), (2, 4, 7, 7)),
    "same": (nn.Conv2d(4, 6, 3, padding="same"), (2, 4, 7, 7)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, bias=False), (2, 4, 7, 7)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, dilation=2), (2, 4, 7, 7)),
    "conv3d": (nn.Conv3d(4, 6, 2), (2, 4, 4, 4, 4)),
    "transposed1d": (nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), (2, 4, 7)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1), (2, 4, 5, 5)),
    "transposed_grouped": (nn.ConvTranspose2d(4, 6, 3, 2, groups=2), (2, 4, 5, 5)),
    "transposed3d": (nn.ConvTranspose3d(4, 6, 2, 2, bias=False), (2, 4, 3, 3, 3)),
    "linear": (nn.Linear(8, 5), (3, 8)),
    "linear3d": (nn.Linear(8, 5, bias=False), (3, 4, 8)),
}


@pytest.mark.parametrize("case", _CASES)
def test_kernels_sum_integers_without_rounding(case):
    layer, shape = _CASES[case]
    captured, plan, params, (x,) = _quantized(nn.Sequential(layer), shape)
    unbiased = type(layer)(**_options(layer)).double()

    def op(value, weight):
        unbiased.weight.data = weight
        return unbiased(value)

    total, scale = _exact(op, x, layer.weight.detach(), captured, plan, params)
    channels = -1 if isinstance(layer, nn.Linear) else 1
    shape = [1] * total.dim()
    shape[channels] = -1
    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
    scale = (scale.repeat(layer.groups) if transposed else scale).reshape(shape)
    bias = 0 if layer.bias is None else layer.bias.double().reshape(shape)
    got = simulate(captured, plan, params)(x)
    want = (total * scale + bias).detach()
    # Two roundings to float32: of the product with the scale and of the sum.
    assert float((got.double() - want).abs().max()) <= 3e-7 * float(want.abs().max())


def _options(layer):
    if isinstance(layer, nn.Linear):
        return {"in_features": layer.in_features, "out_features": layer.out_features, "bias": False}
    names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "groups", "dilation"]
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        names.append("output_padding")
    return {**{n: getattr(layer, n) for n in names}, "bias": False}


class _Product(nn.Module):
    def forward(self, a, b):
        return a @ b.transpose(1, 2)


@pytest.mark.parametrize("same_grid", [(), ("transpose",)])
def test_products_of_two_activations(same_grid):
    captured, plan, params, (a, b) = _quantized(_Product(), (2, 5, 64), (2, 7, 64), same_grid=same_grid)
    first, second = (params[p.group] for p in plan.points)
    integers = ((quantize(v, q).long() - q.zero_point).numpy() for v, q in ((a, first), (b, second)))
    x, y = integers
    want = np.einsum("nik,njk->nij", x, y) * float(first.scale.double() * second.scale.double())
    got = simulate(captured, plan, params)(a, b).double().numpy()
    assert np.abs(got - want).max() <= 2e-7 * np.abs(want).max()


def test_integer_biases_lie_on_their_grid():
    layer = nn.Conv2d(4, 6, 1)
    for bias in ("float", "int32"):
        captured, plan, params, (x,) = _quantized(nn.Sequential(layer), (2, 4, 3, 3), bias=bias)
        at_zero = simulate(captured, plan, params)(torch.zeros_like(x))[0, :, 0, 0].detach()
        xq, wq = (params[p.group] for p in sorted(plan.points, key=lambda p: p.kind))
        steps = at_zero.double() / (xq.scale.double() * wq.scale.double())
        off_grid = float((steps - steps.round()).abs().max())
        assert (off_grid < 1e-3) is (bias == "int32")
        torch.testing.assert_close(at_zero, layer.bias.detach(), atol=float((xq.scale * wq.scale).max()), rtol=0)


def test_values_without_a_kernel_are_rounded_to_their_grid():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return self.b(F.silu(self.a(x)))

    captured, plan, params, (x,) = _quantized(Net(), (2, 4, 5, 5))
    seen = {}
    tested = simulate(captured, plan, params)
    for node in tested.graph.nodes:
        if node.op == "call_module" and node.args[0].name == "silu":
            seen["q"] = tested.get_submodule(str(node.target))
    value = torch.linspace(-3, 3, 50)
    group = params[next(p.group for p in plan.points if p.node == "silu")]
    assert torch.equal(seen["q"](value), fake_quantize(value, group))


def test_the_captured_graph_is_left_as_it_was():
    captured, plan, params, (x,) = _quantized(nn.Sequential(nn.Conv2d(4, 6, 1)), (2, 4, 3, 3))
    before, code = captured.graph_module(x), captured.graph_module.code
    simulate(captured, plan, params)
    assert captured.graph_module.code == code
    assert torch.equal(captured.graph_module(x), before)


def test_operations_keep_their_names():
    captured, plan, params, _ = _quantized(nn.Sequential(nn.Conv2d(4, 6, 1), nn.ConvTranspose2d(6, 4, 2)), (2, 4, 3, 3))
    names = {n.name for n in simulate(captured, plan, params).graph.nodes}
    assert {op.node for op in plan.ops if op.int8} <= names
