"""Sensitivities against figures that are worked out by hand, on networks with one bad layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.quantization.sensitivity import Effect, analyze, owners_of, ranked, restricted
from razordeploy.quantization.simulate import simulate
from tests.quantization.algorithms.conftest import make_draft, sqnr


def net():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4))
    with torch.no_grad():
        model[1].weight[:, 0] = 40  # one coarse scale a row
    return model


def measured(model, x):
    with torch.inference_mode():
        expected = model(x)

    def measure(module):
        with torch.inference_mode():
            found = module(x)
        return Effect(sqnr_db=None if torch.equal(found, expected) else sqnr(expected, found))

    return measure


def test_the_bad_layer_is_first_and_its_weight_is_to_blame():
    model, x = net(), torch.randn(64, 8)
    with torch.no_grad():
        model[0].weight[0] = 0
        model[0].bias[0] = 0
    draft, _ = make_draft(model, x, bits=6)
    found = analyze(draft, measured(model, x))
    assert [s.module for s in found] == ["0", "1", "2"]
    worst = ranked(found)[0]
    assert worst.module == "1"
    assert worst.weights.sqnr_db < worst.activations.sqnr_db - 10


def test_cumulative_ends_with_the_whole_model_and_starts_alone():
    model, x = net(), torch.randn(64, 8)
    draft, _ = make_draft(model, x)
    measure = measured(model, x)
    found = analyze(draft, measure)
    assert found[0].cumulative == found[0].isolated
    assert found[-1].cumulative == measure(simulate(draft.captured, draft.plan, draft.params))


def test_isolated_is_the_model_with_one_rounded_layer():
    model, x = net(), torch.randn(64, 8)
    draft, _ = make_draft(model, x, bits=4)
    found = analyze(draft, measured(model, x), parts=("weights",))
    group = next(p.group for p in draft.plan.points if p.kind == "weight" and "linear_1" in p.users)
    from razordeploy.quantization.qparams import fake_quantize

    twin = net()
    twin.load_state_dict(model.state_dict())
    twin[1].weight.data = fake_quantize(model[1].weight.detach(), draft.params[group])
    with torch.inference_mode():
        expected = sqnr(model(x), twin(x))
    assert abs(found[1].weights.sqnr_db - expected) < 1e-2
    assert found[1].cumulative is None


def test_what_is_known_is_not_measured_again():
    model, x = net(), torch.randn(64, 8)
    draft, _ = make_draft(model, x)
    known, told = {}, []
    first = analyze(draft, measured(model, x), known=known, tell=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)] and len(known) == 3

    def measure(module):
        raise AssertionError("measured again")

    assert analyze(draft, measure, known=known) == first


def test_restricted_plans_hold_only_what_is_asked():
    draft, _ = make_draft(net(), torch.randn(64, 8))
    assert {p.kind for p in restricted(draft.plan, owners_of(draft), {"linear"}, ("weight",)).points} == {"weight"}
    assert restricted(draft.plan, owners_of(draft), set(), ("weight", "activation")).points == ()


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.first(x).reshape(-1, 4, 8)
        return self.head(self.second(x[:, 1:].transpose(1, 2).reshape(-1, 3, 8)).softmax(-1) + x[:, :3])


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch_native"])
def test_what_is_rounded_behind_moves_and_for_float_readers_counts_too(backend):
    torch.manual_seed(0)
    model, x = Tokens(), torch.randn(64, 4, 8)
    draft, _ = make_draft(model, x, backend=backend)
    measure = measured(model, x)
    found = analyze(draft, measure)
    assert [s.op for s in found] == ["linear"] * 3
    assert all(s.activations.sqnr_db is not None for s in found)
    assert found[-1].cumulative == measure(simulate(draft.captured, draft.plan, draft.params))
