"""Bits per layer: the curvature against the exact Hessian, the budgets, and that the order of harm decides."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from razordeploy.backends.registry import find_backend
from razordeploy.capture.export import capture
from razordeploy.capture.graph import CapturedModel, attribute
from razordeploy.config.mixed import MixedPrecisionConfig
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.errors import RecipeError
from razordeploy.quantization.mixed.assign import assign_bits, summary, with_bits
from razordeploy.quantization.mixed.sensitivity import divergence_harms, hessian_traces, monotone
from razordeploy.quantization.plan import QuantPlan
from razordeploy.quantization.qconfig import settings_for


class Net(nn.Module):
    """Two layers of one shape, the second of which hardly counts, between two others."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.loud, self.quiet = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = 2.0 * self.loud(x).tanh() + 0.1 * self.quiet(x).tanh()
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def captured() -> CapturedModel:
    torch.manual_seed(0)
    return capture(Net(), (torch.randn(2, 2, 6, 6),))


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, ...]]:
    return [(torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(1)),)]


@pytest.fixture(scope="module")
def plan(captured) -> QuantPlan:
    backend = find_backend("academic")
    return backend.plan(captured, settings_for(backend.spec, QuantizeConfig()))


def mixed(**given) -> MixedPrecisionConfig:
    found = MixedPrecisionConfig.parse(given, "test")
    assert found is not None
    return found


def test_the_trace_is_that_of_the_exact_hessian():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x = torch.randn(16, 3, dtype=torch.float64)
    captured = capture(net.float(), (x.float(),))
    wanted = torch.log_softmax(captured.graph_module(x.float()), 1).detach().double()
    weight = net[2].weight.detach().double()
    hidden, bias = net[1](net[0](x.float())).detach().double(), net[2].bias.detach().double()

    def loss(w: Tensor) -> Tensor:
        return nn.functional.kl_div(
            torch.log_softmax(hidden @ w.T + bias, 1), wanted, reduction="batchmean", log_target=True
        )

    hessian = torch.autograd.functional.hessian(loss, weight).reshape(12, 12)
    (target,) = [str(n.target) for n in captured.graph.nodes if n.name.endswith("2_weight")]
    found = hessian_traces(captured, [target], [(x.float(),)], probes=400)[target]
    assert found == pytest.approx(float(hessian.trace()), rel=0.05)


def test_both_measures_rank_the_loud_layer_first(captured, plan, batches):
    targets = {p.users[0]: str(next(n for n in captured.graph.nodes if n.name == p.node).target) for p in plan.points}
    loud, quiet = targets["conv2d_1"], targets["conv2d_2"]
    traces = hessian_traces(captured, [loud, quiet], batches)
    assert traces[loud] > 20 * traces[quiet] > 0
    noise = divergence_harms(
        captured, lambda t, b: attribute(captured.graph_module, t) + 0.5**b, [loud, quiet], (2, 4), batches
    )
    assert noise[loud][2] > 20 * noise[quiet][2]
    assert noise[loud][2] > noise[loud][4]


@pytest.mark.parametrize("criterion", ["hessian", "kl"])
@pytest.mark.parametrize(
    "budget",
    [
        {"mean_bits": 4.0},
        {"size_bytes": 400.0},
        {"bops": 36 * 780 * 5 * 8.0},
        {"latency_ms": 1.5e-5, "ms_per_gmac": {2: 0.4, 4: 0.6, 8: 1.0}},
    ],
    ids=lambda b: next(iter(b)),
)
def test_the_budget_is_met_and_the_loud_layer_gets_more(captured, plan, batches, criterion, budget):
    config = mixed(bits=(2, 4, 8), criterion=criterion, **budget)
    chosen = assign_bits(captured, plan, config, batches)
    bits = {layer.module: layer.bits for layer in chosen}
    assert list(bits) == ["first", "loud", "quiet", "head"]
    assert bits["loud"] > bits["quiet"]
    spent = sum(layer.cost for layer in chosen)
    assert 0.5 * config.limit < (spent / sum(x.weights for x in chosen) if "mean_bits" in budget else spent)
    assert (spent / sum(x.weights for x in chosen) if "mean_bits" in budget else spent) <= config.limit
    assert "of " in summary(config, chosen)
    assert "loud" in summary(config, chosen)
    # The plan made with the overrides has those bits.
    backend = find_backend("academic")
    again = backend.plan(captured, settings_for(backend.spec, with_bits(QuantizeConfig(), chosen, activations=True)))
    nodes = {"conv2d": "first", "conv2d_1": "loud", "conv2d_2": "quiet", "linear": "head"}
    for point in again.points:
        if point.kind == "weight":
            assert point.scheme.bits == bits[nodes[point.users[0]]]
            assert point.observer.type == "MSEObserver"
    if "size_bytes" in budget:
        constants = [n for n in captured.graph.nodes if n.op == "get_attr"]
        values = {n.name: attribute(captured.graph_module, str(n.target)) for n in constants}
        assert sum(values[p.node].numel() * p.scheme.bits / 8 for p in again.points if p.kind == "weight") <= 400.0


def test_a_wider_grid_is_never_held_to_be_worse():
    assert monotone({"w": {8: 3.0, 2: 2.0, 4: 5.0}}) == {"w": {2: 2.0, 4: 2.0, 8: 2.0}}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "expected one budget in 'quantize.mixed_precision', got none; give one of size_bytes"),
        ({"mean_bits": 3, "bops": 4}, "got mean_bits, bops"),
        ({"mean_bits": 3, "bit": (2,)}, "unknown key 'bit'"),
        ({"mean_bits": 3, "bits": (0, 2)}, "a list of widths from 1 to 16"),
        ({"mean_bits": 3, "criterion": "hawq"}, "'hessian' or 'kl'"),
        ({"latency_ms": 3, "bits": (4, 8), "ms_per_gmac": {4: 1.0}}, "needs 'ms_per_gmac' for every width of [4, 8]"),
    ],
)
def test_a_wrong_section_is_refused(given, text):
    with pytest.raises(RecipeError) as caught:
        mixed(**given)
    assert text in str(caught.value)


def test_a_budget_that_cannot_be_met_is_refused(captured, plan, batches):
    with pytest.raises(RecipeError, match="budget of 780 cannot be met: the fewest bits everywhere cost"):
        assign_bits(captured, plan, mixed(bits=(2, 8), mean_bits=1.0), batches)
