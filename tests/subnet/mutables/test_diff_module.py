from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.choice_route import DiffChoiceRoute, GumbelChoiceRoute
from razordeploy.subnet.mutables.diff_module import DiffMutableOP, OneHotMutableOP


class _Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def forward(self, x):
        return x * self.factor


def _ops(*factors):
    return nn.ModuleDict({f"times{factor}": _Scale(factor) for factor in factors})


def test_mixture_is_the_softmax_of_the_architecture_parameter():
    op = DiffMutableOP(_ops(1, 10, 100)).double()
    alpha = nn.Parameter(torch.randn(3, dtype=torch.float64))
    x = torch.tensor(2.0, dtype=torch.float64)
    weights = alpha.exp() / alpha.exp().sum()
    torch.testing.assert_close(op(x, alpha), 2 * (weights @ torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)))
    assert torch.autograd.gradcheck(lambda a: op(x, a), (alpha,))
    assert op(x) == 222
    op.set_forward_args(alpha)
    assert op(x) == op(x, alpha)


def test_architecture_parameters_are_not_the_supernets():
    op = DiffMutableOP(_ops(1, 2))
    mutator = nn.ParameterList([nn.Parameter(torch.zeros(2))])
    op.set_forward_args(mutator[0])
    assert {name for name, _ in op.named_parameters()} == {
        "_candidates.times1.factor",
        "_candidates.times2.factor",
    }
    # A bound method or partial in the copy would go on using the original's parameter.
    model = nn.ModuleDict({"op": op, "mutator": mutator})
    other = copy.deepcopy(model)
    other["mutator"][0].data += torch.tensor([5.0, 0.0])
    assert other["op"](torch.tensor(1.0)) < op(torch.tensor(1.0)) == 1.5


def test_fixing_takes_a_name_or_names():
    x = torch.tensor(1.0)
    op = DiffMutableOP(_ops(1, 10, 100))
    assert op.sample_choice(torch.tensor([0.0, 2.0, 1.0])) == "times10"
    op.fix_chosen(["times10"])
    assert (op(x), op.choices) == (10, ["times10"])
    op = DiffMutableOP(_ops(1, 10, 100))
    op.fix_chosen(["times10", "times100"])
    assert op(x) == 110
    for wrong in ("times3", [], ["times1", "times3"]):
        with pytest.raises(ModelError, match="expected"):
            DiffMutableOP(_ops(1, 10)).fix_chosen(wrong)
    with pytest.raises(ModelError, match=r"shape \(2,\), got \(3,\)"):
        DiffMutableOP(_ops(1, 10))(x, torch.zeros(3))


def test_settled_is_the_candidate_over_the_threshold():
    op = DiffMutableOP(_ops(1, 2), fix_threshold=0.9)
    assert op.settled(torch.tensor([0.0, 2.0])) is None
    assert op.settled(torch.tensor([0.0, 2.3])) == "times2"


def test_one_hot_runs_the_candidate_drawn_alone():
    op = OneHotMutableOP(_ops(1, 10))
    alpha = nn.Parameter(torch.tensor([0.0, 0.0]))
    x = torch.tensor(3.0, requires_grad=True)
    out = op(x, alpha)
    drawn = int(op.arch_weights.argmax())
    assert float(out.detach()) == 3 * [1, 10][drawn]
    out.backward()
    # The score of DSNAS, equation 10: the gradient at the weight of what was drawn, and no other.
    assert op.arch_weights.grad.tolist() == [3.0 if drawn == 0 else 0.0, 30.0 if drawn == 1 else 0.0]
    idle = list(op._candidates.values())[1 - drawn]
    assert idle.factor.grad is None
    assert alpha.grad is None


def test_one_hot_draws_by_probability():
    op = OneHotMutableOP(_ops(1, 10))
    alpha = torch.tensor([0.0, 1.0])
    drawn = sum(int(op.sample_weights(alpha, alpha.softmax(0)).argmax()) for _ in range(1000))
    # softmax gives 0.731; 5 standard deviations of a binomial of 1000.
    assert abs(drawn - 731) < 70
    drawn = sum(int(op.sample_weights(alpha, alpha.softmax(0), random_choice=True).argmax()) for _ in range(1000))
    assert abs(drawn - 500) < 79


def _route(kind=DiffChoiceRoute, **keywords):
    return kind(_ops(1, 10, 100), with_arch_param=True, **keywords)


def test_route_weighs_its_inputs():
    route = _route()
    alpha = torch.tensor([0.3, -0.2, 1.0])
    x = [torch.tensor(float(i)) for i in (1, 2, 3)]
    torch.testing.assert_close(route(x, alpha), (alpha.softmax(0) * torch.tensor([1.0, 20.0, 300.0])).sum())
    assert route(x) == 321
    assert DiffChoiceRoute(_ops(1, 10, 100))(x, alpha) == 321
    with pytest.raises(ModelError, match="expected 3 inputs"):
        route(x[:2])


def test_route_keeps_the_strongest_edges():
    route = _route()
    alpha = torch.tensor([0.3, -0.2, 1.0])
    assert route.sample_choice(alpha) == ["times100", "times1"]
    assert len(set(route.sample_choice())) == 2
    route.current_choice = ["times100", "times1"]
    assert route.dump_chosen().chosen == ["times100", "times1"]
    route.fix_chosen(["times100", "times1"])
    # The inputs keep their places, whatever edges are left.
    assert route([torch.tensor(float(i)) for i in (1, 2, 3)]) == 301
    assert route.choices == ["times1", "times100"]
    with pytest.raises(ModelError, match="expected one of"):
        _route().fix_chosen(["times7"])


def test_gumbel_sample_is_one_hot_with_the_soft_gradient():
    route = _route(GumbelChoiceRoute, tau=0.5)
    alpha = nn.Parameter(torch.tensor([0.3, -0.2, 1.0]))
    counts = torch.zeros(3)
    for _ in range(1000):
        probs = route.compute_arch_probs(alpha)
        assert sorted(probs.detach().round(decimals=5).tolist()) == [0.0, 0.0, 1.0]
        counts += probs.detach()
    # The Gumbel maximum is drawn by the softmax; 5 standard deviations.
    assert (counts / 1000 - alpha.detach().softmax(0)).abs().max() < 0.08
    (probs @ torch.tensor([1.0, 2.0, 3.0])).backward()
    assert alpha.grad.abs().sum() > 0
    route.hard = False
    assert (route.compute_arch_probs(alpha) > 0).all()
    with pytest.raises(ModelError, match="above 0"):
        route.set_temperature(0.0)
