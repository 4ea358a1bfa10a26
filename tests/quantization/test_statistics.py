"""One calibration pass for several backends: what is observed, and the grids it becomes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razordeploy.capture.export import capture
from razordeploy.config.backend_spec import BackendSpec, OpRule, TensorRule
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.errors import DataError
from razordeploy.quantization.placement import place
from razordeploy.quantization.qconfig import settings_for
from razordeploy.quantization.statistics import collect, requests, resolve

_SIGNED = TensorRule(signed=True, symmetric=True, per_channel=True)


def _plan(captured, **options):
    spec = BackendSpec(
        name="made_up",
        summary="",
        extra="none",
        ops={"conv2d": OpRule(inputs=(0,), weight=1)},
        weight=_SIGNED,
        **options,
    )
    return place(captured, spec, settings_for(spec, QuantizeConfig()))


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.b(F.max_pool2d(F.relu(self.a(x)), 2))


def _batches(count=3):
    torch.manual_seed(0)
    return [(torch.randn(2, 4, 6, 6),) for _ in range(count)]


def test_ranges_are_those_of_the_values_in_the_graph():
    net = _Net()
    captured, batches = capture(net, _batches()[0]), _batches()
    plan = _plan(captured)
    statistics = collect(captured, [plan], batches)
    params = resolve(captured, plan, statistics)
    assert statistics.samples == 6
    x = torch.cat([b for (b,) in batches])
    with torch.no_grad():
        hidden = F.max_pool2d(F.relu(net.a(x)), 2)
    for point, value in zip([p for p in plan.points if p.kind == "activation"], (x, hidden), strict=True):
        low, high = min(0.0, float(value.min())), max(0.0, float(value.max()))
        assert float(params[point.group].scale) == pytest.approx((high - low) / 255, rel=1e-5)


def test_weights_are_observed_per_output_channel():
    net = _Net()
    captured = capture(net, _batches()[0])
    plan = _plan(captured)
    params = resolve(captured, plan, collect(captured, [plan], _batches()))
    group = next(p.group for p in plan.points if p.kind == "weight" and p.users == ("conv2d",))
    torch.testing.assert_close(params[group].scale, net.a.weight.detach().abs().amax((1, 2, 3)) / 127)


def test_two_backends_are_served_by_one_pass_with_no_value_observed_twice():
    captured = capture(_Net(), _batches()[0])
    plans = [_plan(captured), _plan(captured, activation=TensorRule(signed=True, symmetric=True))]
    assert len(requests(plans)) == len(requests(plans[:1])) == 2
    together = collect(captured, plans, _batches())
    for plan in plans:
        alone = collect(captured, [plan], _batches())
        for group, qparams in resolve(captured, plan, alone).items():
            assert torch.equal(resolve(captured, plan, together)[group].scale, qparams.scale)


def test_members_of_a_group_share_the_widest_range():
    class Cat(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(8, 4, 1)
            self.b.weight.data *= 10

        def forward(self, x):
            return self.c(torch.cat([self.a(x), self.b(x)], 1))

    captured = capture(Cat(), _batches()[0])
    plan = _plan(captured, unify=("cat",))
    params = resolve(captured, plan, collect(captured, [plan], _batches()))
    group = next(p.group for p in plan.points if p.users == ("cat",))
    with torch.no_grad():
        net = captured.graph_module
        values = [torch.cat([_conv(net, n, b) for (b,) in _batches()]) for n in ("conv2d", "conv2d_1")]
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    assert float(params[group].scale) == pytest.approx((high - low) / 255, rel=1e-4)


def _conv(module, name, x):
    node = next(n for n in module.graph.nodes if n.name == name)
    weight, bias = (module.get_parameter(str(a.target)) for a in node.args[1:3])
    return F.conv2d(x, weight, bias)


def test_going_on_from_saved_statistics_is_one_run():
    captured = capture(_Net(), _batches()[0])
    plan, batches = _plan(captured), _batches(4)
    whole = resolve(captured, plan, collect(captured, [plan], batches))
    half = collect(captured, [plan], batches[:2])
    both = resolve(captured, plan, collect(captured, [plan], batches[2:], statistics=half))
    assert half.samples == 8
    for group, qparams in whole.items():
        assert torch.equal(qparams.scale, both[group].scale)


def test_three_dimensional_models_are_calibrated():
    captured = capture(nn.Sequential(nn.Conv3d(2, 2, 1), nn.Flatten()), (torch.randn(2, 2, 3, 3, 3),))
    spec = BackendSpec(
        name="made_up", summary="", extra="none", ops={"conv3d": OpRule(inputs=(0,), weight=1)}, weight=_SIGNED
    )
    plan = place(captured, spec, settings_for(spec, QuantizeConfig()))
    assert resolve(captured, plan, collect(captured, [plan], [(torch.randn(2, 2, 3, 3, 3),)]))


def test_the_models_weights_keep_their_memory_layout():
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
    captured = capture(net, _batches()[0])
    collect(captured, [_plan(captured)], _batches())
    assert net[0].weight.is_contiguous()
    assert all(p.is_contiguous() for p in captured.graph_module.parameters())


def test_no_data_and_bad_data_are_refused():
    captured = capture(_Net(), _batches()[0])
    with pytest.raises(DataError, match="calibration data is empty"):
        collect(captured, [_plan(captured)], [])
    bad = torch.full((2, 4, 6, 6), float("nan"))
    with pytest.raises(DataError, match="NaN or Inf at 'x'"):
        collect(captured, [_plan(captured)], [(bad,)])
