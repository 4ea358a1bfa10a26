"""Models with a method that makes their deploy form: called on a copy, checked, and left where it does not hold."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from razordeploy.capture.deploy_form import switch_all
from razordeploy.capture.export import capture
from razordeploy.capture.graph import module_path

_aten = torch.ops.aten


class Branches(nn.Module):
    """Counts how often it is merged."""

    def __init__(self, inner=None, deploy=False):
        super().__init__()
        self.inner = inner or nn.Identity()
        self.deploy = deploy
        self.merged = 0

    def switch_to_deploy(self):
        self.merged += 1
        self.deploy = True


class Injected(nn.Module):
    """A convolution that its author knows how to put into a fully connected layer, which no sum of kernels is."""

    def __init__(self, wrong=0.0, side=4):
        super().__init__()
        self.dense, self.conv = nn.Linear(side**2, side**2), nn.Conv2d(1, 1, 3, padding=1, bias=False)
        self.side, self.wrong = side, wrong

    def forward(self, x):
        flat = self.dense(x.flatten(1)).reshape(x.shape)
        return torch.relu(flat if self.conv is None else flat + self.conv(x))

    def switch_to_deploy(self):
        if self.conv is None:
            raise AttributeError("'NoneType' object has no attribute 'weight'")
        with torch.no_grad():
            points = torch.eye(self.side**2).reshape(-1, 1, self.side, self.side)
            self.dense.weight += self.conv(points).flatten(1).t() + self.wrong
        self.conv = None


class Sum(nn.Module):
    """Branches whose method does not work; the graph says what they are."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 1)
        self.kept = self.a.weight * 2

    def forward(self, x):
        return torch.relu(self.a(x) + self.b(x))

    def switch_to_deploy(self):
        with torch.no_grad():
            self.a.weight.zero_()
        del self.b
        raise ValueError("not today")


def _net(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.ReLU(), *layers)


def _ops(captured):
    return [str(n.target).split(".")[1] for n in captured.graph.nodes if n.op == "call_function"]


def _holds(net, captured):
    x = torch.randn(3, 1, 4, 4)
    torch.testing.assert_close(captured.graph_module(x), net(x), rtol=1e-5, atol=1e-5)


def test_only_the_outermost_structure_is_merged_and_once():
    inner, ready = Branches(), Branches(deploy=True)
    model = nn.Sequential(Branches(inner), nn.Sequential(Branches()), ready)
    assert switch_all(model) == []
    assert (model[0].merged, inner.merged, model[1][0].merged, ready.merged) == (1, 0, 1, 0)
    switch_all(model)
    assert model[0].merged == 1


def test_parts_that_are_all_switched_need_no_flag_above_them():
    class Whole(nn.Sequential):
        def switch_to_deploy(self):
            raise AttributeError("switched before")

    assert switch_all(Whole(Branches(deploy=True), Branches(deploy=True))) == []
    assert switch_all(Whole(Branches(deploy=True), Branches())) == [
        "switch_to_deploy() of 'Whole' failed: AttributeError: switched before"
    ]


def test_what_fails_is_as_it_was():
    model = _net(Sum(), Branches())
    before = copy.deepcopy(model.state_dict())
    assert switch_all(model) == ["switch_to_deploy() of '1' failed: ValueError: not today"]
    assert model[2].merged == 1
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model[1](torch.ones(1, 1, 4, 4)).shape == (1, 1, 4, 4)


def test_a_bare_module_is_switched_on_a_copy():
    net = _net(Injected()).train()
    before, layers = copy.deepcopy(net.state_dict()), dict(net.named_modules())
    captured = capture(net, (torch.randn(2, 1, 4, 4),))
    assert "conv2d" not in _ops(captured)
    assert not captured.warnings
    assert layers == dict(net.named_modules())
    assert all(module.training for module in net.modules())
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    _holds(net.eval(), captured)


def test_a_module_that_was_switched_by_us_or_its_user_is_captured_as_it_is():
    ours = _net(Injected())
    assert switch_all(ours) == []
    assert not capture(ours, (torch.randn(2, 1, 4, 4),)).warnings
    theirs = _net(Injected())
    theirs[1].switch_to_deploy()
    theirs[1].deploy = True
    assert not capture(theirs, (torch.randn(2, 1, 4, 4),)).warnings


@pytest.mark.parametrize(
    ("layer", "warning"),
    [
        (Sum, "switch_to_deploy() of '1' failed: ValueError: not today"),
        (lambda: Injected(wrong=0.5), "switch_to_deploy() changes the model's outputs by "),
    ],
    ids=["fails", "is wrong"],
)
def test_a_method_that_does_not_hold_is_told(layer, warning):
    net = _net(layer()).eval()
    captured = capture(net, (torch.randn(2, 1, 4, 4),))
    assert len(captured.warnings) == 1
    assert captured.warnings[0].startswith(warning)
    assert _ops(captured).count("conv2d") == 1, "the branches of the sum are merged on the graph"
    _holds(net, captured)


@pytest.mark.parametrize(("weight", "used"), [(0.01, True), (1.0, False)])
def test_what_eight_bits_do_not_hold_stays_apart(weight, used):
    """A convolution of large weights among the 256 small ones of a fully connected layer."""
    layer = Injected(side=16)
    nn.init.normal_(layer.dense.weight, std=0.01)
    nn.init.constant_(layer.conv.weight, 0.0)
    layer.conv.weight.data[..., 1, 1] = weight
    captured = capture(_net(layer), (torch.randn(2, 1, 16, 16),))
    assert ("conv2d" not in _ops(captured)) is used
    said = "switch_to_deploy() makes weights that 8 bits round coarsely: it is not used"
    assert captured.warnings == (() if used else (said,))


def test_where_the_graph_has_no_more_layers_its_own_names_stay():
    class Merged(Sum):
        def switch_to_deploy(self):
            with torch.no_grad():
                self.a.weight[:, :, 1, 1] += self.b.weight[:, :, 0, 0]
                self.a.bias += self.b.bias
            self.c = self.a
            del self.a, self.b

        def forward(self, x):
            return torch.relu(self.c(x) if hasattr(self, "c") else self.a(x) + self.b(x))

    net = _net(Merged()).eval()
    captured = capture(net, (torch.randn(2, 1, 4, 4),))
    assert [module_path(n) for n in captured.graph.nodes if n.target is _aten.conv2d.default] == ["1"]
    assert not captured.warnings
    assert hasattr(net[1], "a")


def test_training_keeps_the_branches():
    assert "conv2d" in _ops(capture(_net(Injected()), (torch.randn(2, 1, 4, 4),), keep_norms=True))
