"""Noise from gradients against what quantizing one operation after the other does."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from razordeploy import recovery_float
from razordeploy.quantization.noise import output_noise
from razordeploy.quantization.sensitivity import owners_of, restricted
from razordeploy.quantization.simulate import simulate
from tests.quantization.algorithms.conftest import images, make_draft


def singles(draft, work, count):
    return replace(work, batch=1).batches(count)


def alone(draft, model, x):
    """Operation -> squared error of every output when it alone is quantized."""
    owners, found = owners_of(draft), {}
    with torch.inference_mode():
        for op in (op.node for op in draft.plan.ops if op.int8):
            plan = restricted(draft.plan, owners, {op}, ("weight", "activation"))
            found[op] = (simulate(draft.captured, plan, draft.params)(x) - model(x)).double().square()
    return found


def test_of_one_output_it_is_the_squared_error():
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1)), torch.randn(32, 8)
    with torch.no_grad():
        model[1].bias += 10
    draft, work = make_draft(model, x, bits=8)
    noise = output_noise(draft, singles(draft, work, 32))
    first = draft.plan.ops[0].node
    expected = (alone(draft, model, x)[first] / model(x).detach().double().square()).mean()
    assert noise[first] == pytest.approx(float(expected), rel=0.05)


def branches():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.quiet, self.loud = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.head = nn.Linear(8 * 64, 10)

        def forward(self, x):
            x = self.stem(x).relu()
            x = x + 0.01 * self.quiet(x).relu() + self.loud(x).relu()
            return self.head(x.flatten(1))

    return Net().eval()


def test_it_is_what_each_operation_does_alone():
    model, x = branches(), images(64)
    with torch.no_grad():
        model.loud.weight[:, 0] *= 6
    draft, work = make_draft(model, x, bits=5)
    before = {n.name: n.target for n in draft.captured.graph.nodes}
    noise = output_noise(draft, singles(draft, work, 64))
    power = model(x).detach().double().square()
    for op, squares in alone(draft, model, x).items():
        expected = float((squares.sum(1) / power.sum(1)).mean())
        assert 10 * math.log10(noise[op] / expected) == pytest.approx(0, abs=2.0), op
    assert {n.name: n.target for n in draft.captured.graph.nodes} == before
    assert all(p.grad is None for p in model.parameters())


def test_ranked_alike_where_there_are_no_gradients(monkeypatch):
    model, x = branches(), images(32)
    draft, work = make_draft(model, x, bits=4)
    ranked = recovery_float.ranking(draft, work)

    def missing(*args, **kwargs):
        raise RuntimeError("derivative for aten::sort is not implemented")

    monkeypatch.setattr(recovery_float, "output_noise", missing)
    one_by_one = recovery_float.ranking(draft, work)
    assert {op for op, _, _ in ranked} == {op for op, _, _ in one_by_one}
    quiet = next(op.node for op in draft.plan.ops if op.module == "quiet")
    assert ranked[-1][0] == one_by_one[-1][0] == quiet
    assert [db for _, _, db in ranked] == sorted(db for _, _, db in ranked)


def test_it_works_where_gradients_are_off():
    draft, work = make_draft(nn.Linear(8, 4), torch.randn(16, 8))
    with torch.no_grad():
        assert all(power > 0 for power in output_noise(draft, singles(draft, work, 4)).values())


@pytest.mark.parametrize(("needed", "most"), [(1, 9), (2, 9), (7, 9), (9, 9), (10, 9), (1, 1), (2, 1), (100, 300)])
def test_the_fewest_are_found_in_few_tries(needed, most):
    tried = []

    def enough(count):
        tried.append(count)
        return count >= needed

    assert recovery_float.fewest(most, enough) == (needed if needed <= most else None)
    assert len(set(tried)) == len(tried) <= 2 + 2 * math.log2(most) + 1 and max(tried) <= most


@pytest.mark.parametrize(("count", "most", "expected"), [(3, 9, [3, 4, 5, 6]), (40, 43, [40, 43]), (9, 9, [9])])
def test_a_few_more_are_tried_for_the_engine(count, most, expected):
    assert list(recovery_float.more(count, most)) == expected
