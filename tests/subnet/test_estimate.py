"""Costs of a choice, against torch's own counter, mmengine's and models that were really sliced."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from razordeploy.errors import UsageError
from razordeploy.models.cifar import resnet20
from razordeploy.subnet.channel_graph import channel_graph
from razordeploy.subnet.estimate import ResourceCounter, ResourceEstimator
from razordeploy.subnet.slice import slice_model


class Mixed(nn.Module):
    """Wide and narrow groups, a transposed convolution, attention, an einsum, a shared weight."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 3, groups=2, stride=2)
        self.c, self.t = nn.Conv2d(24, 24, 3, groups=24), nn.ConvTranspose2d(24, 12, 2, stride=2, groups=2)
        self.q, self.k, self.v = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12)
        self.v.weight = self.k.weight
        self.m, self.fc = nn.Linear(12, 6, bias=False), nn.Linear(6, 5)

    def forward(self, x):
        x = self.t(self.c(self.b(self.a(x)))).flatten(2).transpose(1, 2)
        q, k, v = (f(x).unflatten(-1, (3, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = torch.einsum("bnc,dc->bnd", x, self.m.weight)
        return self.fc(torch.bmm(x @ x.transpose(1, 2), x).mean(1))


def flops_of(model, *inputs):
    # The counter does not know the fused attention of a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return counter.get_total_flops()


def params_of(model):
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def x():
    return torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("choice", [None, 0.5, 0.25])
def test_counts_are_those_of_the_sliced_model(choice, x):
    model = Mixed().eval()
    graph = channel_graph(model, x)
    counted = ResourceCounter(graph, model).count(choice)
    small = model if choice is None else slice_model(model, graph, choice, example_inputs=x).module
    assert counted.flops == flops_of(small, x) == 2 * counted.macs
    assert counted.params == params_of(small)


def test_every_unit_counts_on_its_own(x):
    model = resnet20().eval()
    images = torch.randn(1, 3, 32, 32)
    graph = channel_graph(model, images)
    counter = ResourceCounter(graph, model)
    for name in list(graph.prunable)[:4]:
        small = slice_model(model, graph, {name: 0.5}, example_inputs=images).module
        counted = counter.count({name: 0.5})
        assert (counted.flops, counted.params) == (flops_of(small, images), params_of(small))


def test_macs_and_activations_are_those_of_mmengine():
    from mmengine.analysis import ActivationAnalyzer, FlopAnalyzer

    model, images = resnet20().eval(), torch.randn(1, 3, 32, 32)
    counted = ResourceCounter(channel_graph(model, images), model).count()
    by_operator = FlopAnalyzer(model, images).by_operator()
    assert counted.macs == by_operator["conv"] + by_operator["linear"]
    assert counted.activations == ActivationAnalyzer(model, images).total()


def test_macs_of_modules_sum_up(x):
    model = Mixed().eval()
    counter = ResourceCounter(channel_graph(model, x), model)
    modules = counter.macs_by_module()
    assert sum(modules.values()) == counter.count().macs
    assert modules["a"] == 16 * 12 * 12 * 3 * 9


def test_peak_memory_of_a_chain():
    """Of two live tensors: the larger neighbours of a chain, an element is 4 bytes; a reshape takes nothing."""
    model = nn.Sequential(nn.Linear(10, 100), nn.Unflatten(1, (10, 10)), nn.Flatten(), nn.Linear(100, 40))
    counted = ResourceCounter(channel_graph(model, torch.randn(2, 10)), model).count()
    assert counted.peak_activation_bytes == 4 * 2 * (100 + 40)


def test_hundreds_of_candidates_a_second():
    model = resnet20().eval()
    counter = ResourceCounter(channel_graph(model, torch.randn(1, 3, 32, 32)), model)
    choices = [{name: 0.1 + 0.008 * k for name in counter.graph.prunable} for k in range(100)]
    start = time.process_time()
    for choice in choices:
        counter.count(choice)
    assert time.process_time() - start < 1.0


def test_the_estimator_scales_names_and_asks_for_latency(x):
    model = Mixed().eval()
    asked = []

    def cost(small, inputs):
        asked.append((small.a.weight.shape[0], inputs[0].shape))
        return 1.25

    estimator = ResourceEstimator(input_shape=(1, 3, 12, 12), units={"flops": "K", "params": ""}, cost=cost)
    whole, half = estimator.estimate(model), estimator.estimate(model, 0.5)
    assert whole["params"] == params_of(model) and whole["flops"] == flops_of(model, x) / 1e3
    assert half["latency"] == 1.25 and asked == [(16, (1, 3, 12, 12)), (8, (1, 3, 12, 12))]
    assert half["flops"] < 0.5 * whole["flops"] and half["memory"] < whole["memory"]
    assert estimator.counter(model) is estimator.counter(model)
    words = ResourceEstimator((1, 3, 12, 12), as_strings=True).estimate(model)
    assert words["params"] == f"{params_of(model) / 1e6:.4g} M" and "latency" not in words


@pytest.mark.parametrize(
    ("units", "message"),
    [({"flop": "M"}, "nothing is called 'flop'; did you mean 'flops'?"), ({"flops": "m"}, "units.flops: expected one")],
)
def test_unknown_units_are_refused(units, message):
    with pytest.raises(UsageError) as error:
        ResourceEstimator(units=units)
    assert message in str(error.value)
