"""The trained graph against the simulation of what is exported, and what it owns."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from razordeploy.backends.registry import find_backend
from razordeploy.capture.export import capture
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.errors import ModelError
from razordeploy.quantization.dead import dead_values
from razordeploy.quantization.fake_quants.fake_quantize import FakeQuantize
from razordeploy.quantization.fake_quants.lsq import LearnableFakeQuantize
from razordeploy.quantization.fake_quants.pact import PACTFakeQuantize
from razordeploy.quantization.qat import phases
from razordeploy.quantization.qat.check import check_gradients
from razordeploy.quantization.qat.choose import chosen_fake_quants
from razordeploy.quantization.qat.graph import QATGraph
from razordeploy.quantization.qconfig import settings_for
from razordeploy.quantization.simulate import simulate
from razordeploy.quantization.statistics import collect, resolve
from tests.quantization.qat.conftest import Case, HardNet

FAKE_QUANTS = {
    "learned": ({}, LearnableFakeQuantize),
    "observed": ({"w_fake_quant": "FakeQuantize", "a_fake_quant": "FakeQuantize"}, FakeQuantize),
    "pact": ({"a_fake_quant": "mmrazor.PACTFakeQuantize"}, PACTFakeQuantize),
}


def step(network: QATGraph, images: torch.Tensor, labels: torch.Tensor, lr: float = 0.05) -> None:
    network.train()
    phases.train_phase(network, observe=True)
    loss = nn.functional.cross_entropy(network(images), labels)
    network.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter -= lr * parameter.grad
    phases.validation_phase(network)
    network.eval()


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch_native", "academic"])
@pytest.mark.parametrize("live", [False, True], ids=["frozen", "live"])
@pytest.mark.parametrize("kind", FAKE_QUANTS)
def test_what_was_trained_is_what_is_exported(backend, live, kind):
    _trained_is_exported(Case(backend, {"global_qconfig": FAKE_QUANTS[kind][0]}), live)


@pytest.mark.parametrize("kind", FAKE_QUANTS)
def test_a_grid_with_a_floor_is_trained_as_it_is_exported(kind):
    case = Case("onnxruntime", {"global_qconfig": FAKE_QUANTS[kind][0]}, HardNet)
    params = _trained_is_exported(case, live=False)
    (swish,) = (q for q in params.values() if q.scheme.floor is not None)
    assert float(swish.scale) * int(swish.zero_point) == pytest.approx(3.0, rel=1e-6)


def _trained_is_exported(case, live):
    network = case.network(live_norms=live)
    assert len(list(network.folded_layers())) == 2
    before = {g: p.scale.clone() for g, p in network.params().items()}
    for _ in range(3):
        step(network, case.source.images, case.source.labels)
    trained, params = network.trained_model(case.captured), network.params()
    assert set(params) == {p.group for p in case.plan.points}
    assert any(not torch.equal(before[g], params[g].scale) for g in params)
    x = case.source.images
    with torch.no_grad():
        # Biases are trained in float: the engine's 32-bit integers are finer than anything else.
        expected, found = network(x), simulate(trained, dataclasses.replace(case.plan, bias="float"), params)(x)
    # Sums of floats against sums of integers: the last bits, and now and then a value on a rounding boundary.
    assert (expected - found).abs().max() < 0.05 * expected.abs().max()
    assert (expected - found).abs().mean() < 1e-3 * expected.abs().mean()
    assert [n.name for n in trained.graph.nodes] == [n.name for n in case.captured.graph.nodes]
    return params


def test_before_training_it_computes_what_ptq_gives():
    case = Case("onnxruntime")
    network = case.network(live_norms=True).eval()
    phases.validation_phase(network)
    with torch.no_grad():
        expected = simulate(case.captured, case.plan, case.params)(case.source.images)
        torch.testing.assert_close(network(case.source.images), expected, rtol=0, atol=2e-2)


def test_nothing_is_shared_with_the_model():
    case = Case()
    state = {k: v.clone() for k, v in case.net.state_dict().items()}
    captured = copy.deepcopy(dict(case.captured.graph_module.named_buffers()))
    network = case.network(live_norms=True)
    step(network, case.source.images, case.source.labels)
    assert all(torch.equal(state[k], v) for k, v in case.net.state_dict().items())
    assert all(torch.equal(captured[k], v) for k, v in case.captured.graph_module.named_buffers())


@pytest.mark.parametrize("kind", FAKE_QUANTS)
def test_the_recipe_chooses_the_fake_quant(kind):
    qconfig, expected = FAKE_QUANTS[kind]
    case = Case(quantize={"overrides": [{"module": "conv2", "qconfig": qconfig}]})
    make = chosen_fake_quants(case.captured, case.plan, case.config)
    points = [p for p in case.plan.points if "conv2d_1" in p.users]
    assert len(points) == 2
    made = {p.kind: make(p, case.params[p.group]) for p in points}
    assert type(made["activation"]) is expected
    others = [p for p in case.plan.points if p.users == ("conv2d",)]
    assert others
    assert all(type(make(p, case.params[p.group])) is LearnableFakeQuantize for p in others)


@pytest.mark.parametrize(
    ("bits", "expected"), [(4, LearnableFakeQuantize), (8, LearnableFakeQuantize), (16, FakeQuantize)]
)
def test_wide_grids_are_observed_unless_the_recipe_says_otherwise(bits, expected):
    case = Case(
        "academic", {"global_qconfig": {"w_qscheme": {"bit": bits, "per_channel": True}, "a_qscheme": {"bit": bits}}}
    )
    make = case.network_maker()
    assert {type(make(p, case.params[p.group])) for p in case.plan.points} == {expected}
    network = case.network()
    step(network, case.source.images, case.source.labels)
    assert all(torch.isfinite(p.scale).all() for p in network.params().values())


def test_state_is_hardly_more_than_that_of_the_float_model():
    case = Case()
    floats = sum(x.numel() for x in case.net.state_dict().values())
    for live in (False, True):
        state = case.network(live_norms=live).state_dict()
        grids = sum(v.numel() for k, v in state.items() if "_quant_" in k)
        assert sum(x.numel() for x in state.values()) - grids <= floats
        assert len({v.data_ptr() for k, v in state.items() if k.endswith("weight")}) == 3


def test_an_observed_range_follows_and_a_passed_on_one_does_not():
    case = Case("torch_native", {"global_qconfig": {"a_fake_quant": "FakeQuantize"}})
    network = case.network()
    followers = [n for n, _ in network.module.named_modules() if "follows" in n]
    assert len(followers) == sum(not p.observed for p in case.plan.points) == 2
    step(network, case.source.images * 50, case.source.labels, lr=0.0)
    name = network._groups["relu_1"]
    assert float(network.params()["relu_1"].scale) > 1.2 * float(case.params["relu_1"].scale)
    # The two ends of the calibrated range, and each sample once.
    assert network.module.get_submodule(name).observer.count == 2 + len(case.source)


def test_a_frozen_model_is_refused_and_a_half_frozen_one_is_respected():
    case = Case()
    case.net.requires_grad_(False)
    frozen = capture(case.net, (case.source.images[:2],), keep_norms=True)
    make = chosen_fake_quants(frozen, case.plan, case.config)
    with pytest.raises(ModelError, match=r"the model is frozen: .*; model.requires_grad_\(True\)"):
        QATGraph(frozen, case.plan, case.params, make)
    case.net.linear.requires_grad_(True)
    half = QATGraph(capture(case.net, (case.source.images[:2],)), case.plan, case.params, make)
    assert [n for n, _ in half.trained()] == ["module.linear.weight", "module.linear.bias"]


class Hard(nn.Module):
    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.first, self.last, self.whole = nn.Linear(16, 16), nn.Linear(16, 2), whole

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x.flatten(1)).sign()
        return y.argmax(1).float() if self.whole else self.last(y)


def _hard(whole: bool) -> tuple[QATGraph, torch.Tensor]:
    x = torch.randn(4, 1, 4, 4)
    captured, config, backend = capture(Hard(whole), (x,)), QuantizeConfig(), find_backend("academic")
    plan = backend.plan(captured, settings_for(backend.spec, config))
    params = resolve(captured, plan, collect(captured, [plan], [(x,)]))
    return QATGraph(captured, plan, params, chosen_fake_quants(captured, plan, config)), x


def test_what_no_gradient_reaches_is_named():
    network, x = _hard(whole=True)
    with pytest.raises(ModelError, match="cannot be trained: no gradient comes through 'argmax' at .*test_graph.py"):
        check_gradients(network, (x,))


def test_a_gradient_of_zero_is_no_error():
    network, x = _hard(whole=False)
    assert check_gradients(network, (x,)) == []


class Cut(nn.Module):
    """Integers in the middle: what comes before them learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last((10 * self.norm(self.stem(x))).int().float().flatten(1))


def test_what_is_before_a_step_without_gradient_is_named_as_the_model_names_it():
    x = torch.randn(4, 1, 4, 4)
    captured, config, backend = capture(Cut(), (x,), keep_norms=True), QuantizeConfig(), find_backend("academic")
    plan = backend.plan(captured, settings_for(backend.spec, config))
    params = resolve(captured, plan, collect(captured, [plan], [(x,)]))
    network = QATGraph(captured, plan, params, chosen_fake_quants(captured, plan, config))
    (note,) = check_gradients(network, (x,))
    assert "parameters, which stay as they are: 'stem.weight' ...; it ends in '" in note and "test_graph.py:" in note


def test_dead_values_are_said():
    case = Case()
    assert dead_values(case.captured, case.plan, case.statistics) == []
    with torch.no_grad():
        case.net.bn1.bias.fill_(-100.0)
    captured = capture(case.net, (case.source.images[:2],))
    statistics = collect(captured, [case.plan], [(case.source.images,)])
    (note,) = dead_values(captured, case.plan, statistics)
    assert "'relu'" in note
    assert "0 for every calibration sample (dead ReLUs?)" in note
