"""Folding batch norms, against the formula in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from razordeploy.capture.export import capture

_aten = torch.ops.aten


def _norm(kind, channels, **options):
    norm = kind(channels, **options)
    norm.running_mean.normal_(0, 2)
    norm.running_var.uniform_(0.01, 4)
    if norm.affine:
        norm.weight.data.uniform_(-2, 2)
        norm.bias.data.normal_()
    return norm


def _convolutions():
    for rank in (1, 2, 3):
        conv, up, norm = (getattr(nn, f"{n}{rank}d") for n in ("Conv", "ConvTranspose", "BatchNorm"))
        x = (2, 6, *[5] * rank)
        yield f"conv{rank}d", lambda c=conv: c(6, 4, 3), norm, x
        yield f"grouped{rank}d", lambda c=conv: c(6, 4, 3, groups=2, bias=False), norm, x
        yield f"transposed{rank}d", lambda c=up: c(6, 4, 3, 2), norm, x
        yield f"transposed_grouped{rank}d", lambda c=up: c(6, 4, 3, 2, groups=2, bias=False), norm, x
    yield "linear", lambda: nn.Linear(6, 4), nn.BatchNorm1d, (3, 6)


_CASES = {name: rest for name, *rest in _convolutions()}


@pytest.mark.parametrize("case", _CASES)
def test_folds_into_what_is_before_it(case):
    torch.manual_seed(0)
    make, norm, shape = _CASES[case]
    net = nn.Sequential(make(), _norm(norm, 4)).eval()
    captured = capture(net, (torch.randn(shape),))
    assert len([n for n in captured.graph.nodes if n.op == "call_function"]) == 1, "the norm is still there"
    x = torch.randn(shape)
    exact = copy.deepcopy(net).double()(x.double()).detach()
    with torch.no_grad():
        torch.testing.assert_close(
            captured.graph_module(x).double(), exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max())
        )


def test_folded_weight_is_rounded_once_from_float64():
    torch.manual_seed(1)
    conv, norm = nn.Conv2d(3, 5, 3), _norm(nn.BatchNorm2d, 5, eps=1e-3)
    captured = capture(nn.Sequential(conv, norm).eval(), (torch.randn(2, 3, 6, 6),))
    node = next(n for n in captured.graph.nodes if n.target is _aten.conv2d.default)
    weight, bias = (getattr(captured.graph_module, str(a.target)) for a in node.args[1:3])
    gain = norm.weight.double() / (norm.running_var.double() + 1e-3).sqrt()
    assert torch.equal(weight, (conv.weight.double() * gain.reshape(-1, 1, 1, 1)).float())
    shift = (conv.bias.double() - norm.running_mean.double()) * gain + norm.bias.double()
    torch.testing.assert_close(bias, shift.float(), rtol=1e-6, atol=1e-6)


def test_without_affine_parameters():
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), _norm(nn.BatchNorm2d, 5, affine=False)).eval()
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(capture(net, (x,)).graph_module(x), net(x), rtol=1e-4, atol=1e-5)


class _TwoReaders(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), _norm(nn.BatchNorm2d, 3)

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x) + x


class _SharedConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(3, 3, 1), _norm(nn.BatchNorm2d, 3), _norm(nn.BatchNorm2d, 3)

    def forward(self, x):
        return self.b(self.conv(self.a(self.conv(x))))


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda: nn.Sequential(_norm(nn.BatchNorm2d, 3)), ["mul", "add"]),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), _norm(nn.BatchNorm2d, 3)),
            ["conv2d", "relu", "mul", "add"],
        ),
        (_TwoReaders, ["conv2d", "mul", "add", "add"]),
        (_SharedConvolution, ["conv2d", "conv2d"]),
    ],
    ids=["alone", "behind_relu", "two_readers", "two_norms_of_one_weight"],
)
def test_where_it_cannot_fold_it_multiplies_and_adds(make, left):
    torch.manual_seed(3)
    net, x = make().eval(), torch.randn(2, 3, 4, 4)
    captured = capture(net, (x,))
    names = [n.target._schema.name.partition("::")[2] for n in captured.graph.nodes if n.op == "call_function"]
    assert names == left
    with torch.no_grad():
        torch.testing.assert_close(captured.graph_module(x), net(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (lambda: nn.Conv2d(3, 3, 1), nn.BatchNorm2d, (2, 3, 4, 4)),
        (lambda: nn.Linear(3, 3), nn.BatchNorm1d, (2, 3)),
        (nn.Identity, nn.BatchNorm2d, (2, 3, 4, 4)),
    ],
    ids=["conv", "linear", "alone"],
)
def test_in_graphs_that_torch_made_functional(layer, norm, shape):
    """A write through a view makes torch write the norm out as one that returns its statistics too."""

    class Net(nn.Sequential):
        def forward(self, x):
            x = super().forward(x)
            torch.relu_(x.flatten(1))
            return x

    torch.manual_seed(5)
    net, x = Net(layer(), _norm(norm, 3)).eval(), torch.randn(shape)
    captured = capture(net, (x,))
    names = [str(n.target) for n in captured.graph.nodes if n.op == "call_function"]
    assert not any("getitem" in name or "batch_norm" in name for name in names), names
    with torch.no_grad():
        torch.testing.assert_close(captured.graph_module(x), net(x), rtol=1e-4, atol=1e-4)


def test_sequence_norm_behind_a_linear_layer_is_over_another_axis():
    torch.manual_seed(4)
    net, x = nn.Sequential(nn.Linear(6, 5), _norm(nn.BatchNorm1d, 4)).eval(), torch.randn(2, 4, 6)
    captured = capture(net, (x,))
    with torch.no_grad():
        torch.testing.assert_close(captured.graph_module(x), net(x), rtol=1e-4, atol=1e-5)


def test_the_model_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), _norm(nn.BatchNorm2d, 3)).train()
    before = copy.deepcopy(net.state_dict())
    capture(net, (torch.randn(2, 3, 4, 4),))
    assert net.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
