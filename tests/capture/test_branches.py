"""Parallel linear branches become one layer; what is not the same function, or a residual, stays."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import fx, nn

from razordeploy.capture import branches
from razordeploy.capture.export import capture
from razordeploy.capture.graph import module_path

_aten = torch.ops.aten


def _conv(kernel=3, *, channels=(4, 4), **options):
    padding = options.pop("padding", None)
    return nn.Conv2d(*channels, kernel, padding=kernel // 2 if padding is None else padding, **options)


def _conv_bn(kernel=3, *, channels=(4, 4), **options):
    return nn.Sequential(_conv(kernel, channels=channels, bias=False, **options), nn.BatchNorm2d(channels[1]))


class _Net(nn.Module):
    """``forward(net, x)`` over layers ``a``, ``b`` ..., between a stem and a head that are not linear."""

    def __init__(self, forward, *layers):
        super().__init__()
        for name, layer in zip("abcdef", layers, strict=False):
            self.add_module(name, layer)
        self.gamma = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.body = forward

    def forward(self, x):
        return torch.relu(self.body(self, torch.relu(x)))


class _RepVGG(nn.Module):
    """A RepVGG block as it is trained (Ding et al., 2021, figure 2)."""

    def __init__(self, channels, stride=1, groups=1):
        super().__init__()
        self.dense = _conv_bn(3, channels=channels, stride=stride, groups=groups)
        self.point = _conv_bn(1, channels=channels, stride=stride, groups=groups)
        self.norm = nn.BatchNorm2d(channels[0]) if channels[0] == channels[1] and stride == 1 else None

    def forward(self, x):
        return torch.relu(self.dense(x) + self.point(x) + (0 if self.norm is None else self.norm(x)))


class _MobileOne(nn.Module):
    """A MobileOne block: several convolutions, one of one tap and a norm, added in place (Vasu et al., 2023)."""

    def __init__(self, channels, kernel, groups=1, count=3):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.scale = _conv_bn(1, channels=(channels, channels), groups=groups) if kernel > 1 else None
        self.convs = nn.ModuleList(_conv_bn(kernel, channels=(channels, channels), groups=groups) for _ in range(count))

    def forward(self, x):
        out = self.norm(x)
        if self.scale is not None:
            out += self.scale(x)
        for conv in self.convs:
            out += conv(x)
        return torch.relu(out)


class _RepMixer(nn.Module):
    """FastViT's mixer (Vasu et al., 2023): a difference of branches, scaled, on top of the value itself."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.mixer = nn.ModuleList(
            [
                _conv_bn(3, channels=(channels, channels), groups=channels),
                _conv_bn(1, channels=(channels, channels), groups=channels),
                nn.BatchNorm2d(channels),
            ]
        )
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.3))

    def forward(self, x):
        mixed = self.mixer[0](x) + self.mixer[1](x) + self.mixer[2](x)
        return torch.relu(x + self.scale * (mixed - self.norm(x)))


_IMAGE = (2, 4, 9, 9)
_MERGED = {
    "repvgg": (lambda: nn.Sequential(nn.ReLU(), _RepVGG((4, 8), 2), _RepVGG((8, 8))), 2, _IMAGE),
    "repvgg in groups": (lambda: nn.Sequential(nn.ReLU(), _RepVGG((4, 4), groups=2)), 1, _IMAGE),
    "mobileone": (
        lambda: nn.Sequential(nn.ReLU(), _MobileOne(4, 3, groups=4), _MobileOne(4, 1)),
        2,
        _IMAGE,
    ),
    "difference": (lambda: nn.Sequential(nn.ReLU(), _RepMixer(4)), 1, _IMAGE),
    "two convolutions": (lambda: _Net(lambda m, x: m.a(x) + m.b(x), _conv(5), _conv(3)), 1, _IMAGE),
    "and the value": (lambda: _Net(lambda m, x: x + m.a(x) + m.b(x), _conv(), _conv(1)), 1, _IMAGE),
    "a scaled sum": (lambda: _Net(lambda m, x: m.gamma * (m.a(x) + m.b(x)) / 3, _conv(), _conv(1)), 1, _IMAGE),
    "a norm behind": (lambda: _Net(lambda m, x: m.c(m.a(x) + m.b(x)), _conv(), _conv(1), nn.BatchNorm2d(4)), 1, _IMAGE),
    "scaled branches": (lambda: _Net(lambda m, x: m.a(x) * m.gamma - 2 * m.b(x) + 1, _conv(), _conv(1)), 1, _IMAGE),
    "norm and convolution": (lambda: _Net(lambda m, x: m.a(x) + m.b(x), _conv(), nn.BatchNorm2d(4)), 1, _IMAGE),
    "kernels of one axis": (
        lambda: _Net(
            lambda m, x: m.a(x) + m.b(x) + m.c(x),
            _conv(),
            _conv((1, 3), padding=(0, 1)),
            _conv((3, 1), padding=(1, 0)),
        ),
        1,
        _IMAGE,
    ),
    "same padding by name": (lambda: _Net(lambda m, x: m.a(x) + m.b(x), _conv(3, padding="same"), _conv(1)), 1, _IMAGE),
    "dilation": (lambda: _Net(lambda m, x: m.a(x) + m.b(x), _conv(3, padding=2, dilation=2), _conv(1)), 1, _IMAGE),
    "linear": (lambda: _Net(lambda m, x: m.a(x) + m.b(x) + x, nn.Linear(6, 6), nn.Linear(6, 6, False)), 1, (2, 5, 6)),
    "1d": (
        lambda: _Net(
            lambda m, x: m.a(x) + m.b(x) + m.c(x),
            nn.Conv1d(4, 4, 3, padding=1),
            nn.Conv1d(4, 4, 1),
            nn.BatchNorm1d(4),
        ),
        1,
        (2, 4, 9),
    ),
    "3d": (
        lambda: _Net(lambda m, x: m.a(x) + m.b(x), nn.Conv3d(4, 4, 3, padding=1), nn.BatchNorm3d(4)),
        1,
        (2, 4, 4, 4, 4),
    ),
    "beside a residual": (
        lambda: _Net(lambda m, x: x + (m.b(y := torch.relu(m.a(x))) + m.c(y)), _conv(), _conv(), _conv(1)),
        2,
        _IMAGE,
    ),
    "two pairs": (
        lambda: _Net(lambda m, x: m.a(x) + m.b(x) + m.c(y := x.abs()) - m.d(y), _conv(), _conv(1), _conv(), _conv(1)),
        2,
        _IMAGE,
    ),
}
"""Net, layers that are left, shape of its input."""
_KEPT = {
    "a residual": (lambda: _Net(lambda m, x: x + m.a(x), _conv()), 1, 1),
    "one twice": (lambda: _Net(lambda m, x: (y := m.a(x)) + y, _conv()), 1, 1),
    "a residual over two": (lambda: _Net(lambda m, x: x + m.b(m.a(x)), _conv(), _conv()), 2, 1),
    "other values": (lambda: _Net(lambda m, x: m.a(x) + m.b(x.abs()), _conv(), _conv()), 2, 1),
    "read elsewhere": (lambda: _Net(lambda m, x: torch.cat([(y := m.a(x)) + m.b(x), y]), _conv(), _conv(1)), 2, 1),
    "a sum read elsewhere": (
        lambda: _Net(lambda m, x: torch.cat([(y := x + m.a(x)) + m.b(x), y]), _conv(), _conv(1)),
        2,
        2,
    ),
    "circular padding": (lambda: _Net(lambda m, x: m.a(x) + m.b(x), _conv(padding_mode="circular"), _conv(1)), 2, 1),
    "reflected padding": (lambda: _Net(lambda m, x: m.a(x) + m.b(x), _conv(padding_mode="reflect"), _conv(1)), 2, 1),
    "broadcast": (lambda: _Net(lambda m, x: m.a(x) + m.b(x), _conv(9, padding=0), _conv(1)), 2, 1),
    "a dense and a large one": (
        lambda: _Net(lambda m, x: m.a(x) + m.b(x), _conv(7, groups=4), _conv(1)),
        2,
        1,
    ),
    "weighted sum": (lambda: _Net(lambda m, x: torch.add(m.a(x), m.b(x), alpha=2), _conv(), _conv(1)), 2, 1),
    "by position": (
        lambda: _Net(lambda m, x: m.a(x) + x * torch.arange(9.0), _conv()),
        1,
        1,
    ),
    "weights that depend on the data": (
        lambda: _Net(
            lambda m, x: m.a(x) + torch.nn.functional.conv2d(x, m.b.weight * x.mean(), padding=1), _conv(), _conv()
        ),
        2,
        1,
    ),
}
"""Net, layers and additions that are left."""
_LAYERS = {_aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default, _aten.linear.default}


def _made(make):
    torch.manual_seed(0)
    net = make()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 2)
            module.weight.data.uniform_(-2, 2)
            module.bias.data.normal_()
    return net.eval()


def _check(net, captured, shape):
    for batch in (1, 3):
        x = torch.randn(batch, *shape[1:])
        exact = copy.deepcopy(net).double()(x.double()).detach()
        found = captured.graph_module(x).detach().double()
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max()))


def _layers(captured):
    return [n for n in captured.graph.nodes if n.target in _LAYERS]


@pytest.mark.parametrize("case", _MERGED)
def test_is_merged(case):
    make, layers, shape = _MERGED[case]
    net = _made(make)
    captured = capture(net, (torch.randn(shape),))
    left = Counter(str(n.target).removeprefix("aten.") for n in captured.graph.nodes if n.op == "call_function")
    assert len(_layers(captured)) == layers, left
    assert sum(left[f"{op}.Tensor"] for op in ("add", "sub")) == {"beside a residual": 1, "two pairs": 1}.get(case, 0)
    assert not left["mul.Tensor"] + left["div.Tensor"]
    _check(net, captured, shape)


@pytest.mark.parametrize("case", _KEPT)
def test_stays(case):
    make, layers, sums = _KEPT[case]
    net = _made(make)
    captured = capture(net, (torch.randn(_IMAGE),))
    assert len(_layers(captured)) == layers
    assert len([n for n in captured.graph.nodes if n.target is _aten.add.Tensor]) == sums
    _check(net, captured, _IMAGE)


def test_the_sum_is_rounded_once_from_float64():
    net = _made(lambda: _Net(lambda m, x: m.a(x) + m.b(x) + x, _conv(), _conv(1)))
    captured = capture(net, (torch.randn(_IMAGE),))
    weight, bias = (getattr(captured.graph_module, str(n.target)) for n in _layers(captured)[0].args[1:3])
    exact = net.a.weight.detach().double()
    exact[:, :, 1, 1] += net.b.weight.detach().double()[:, :, 0, 0] + torch.eye(4).double()
    assert torch.equal(weight, exact.float())
    assert torch.equal(bias, (net.a.bias.detach().double() + net.b.bias.detach().double()).float())


@pytest.mark.parametrize(("channels", "adds"), [(16, 0), (64, 1)])
def test_a_norm_joins_where_eight_bits_hold_it(channels, adds):
    """Among 9 x 64 weights of unit sum of squares, the one of a norm's factor leaves the others few steps."""
    net = _made(lambda: nn.Sequential(nn.ReLU(), _RepVGG((channels, channels)), nn.Conv2d(channels, 4, 1)))
    for module in net[1].modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight), nn.init.ones_(module.running_var)
    nn.init.normal_(net[1].dense[0].weight, std=(9 * channels) ** -0.5)
    nn.init.normal_(net[1].point[0].weight, std=channels**-0.5 / 3)
    shape = (2, channels, 5, 5)
    captured = capture(net, (torch.randn(shape),))
    assert len(_layers(captured)) == 2, "the convolutions are one in any case"
    assert len([n for n in captured.graph.nodes if n.target is _aten.add.Tensor]) == adds
    assert len([n for n in captured.graph.nodes if n.target is _aten.mul.Tensor]) == adds
    _check(net, captured, shape)


def test_the_layer_is_named_after_the_block():
    net = _made(lambda: nn.Sequential(nn.ReLU(), nn.Sequential(_RepVGG((4, 8), 2), _RepVGG((8, 8))), _MobileOne(8, 3)))
    captured = capture(net, (torch.randn(_IMAGE),))
    assert [module_path(n) for n in _layers(captured)] == ["1.0", "1.1", "2"]
    origins = [n.args[1].meta["origin"] for n in _layers(captured)]
    assert origins == ["1.0.weight", "1.1.weight", "2.weight"]
    alone = capture(_made(lambda: _RepVGG((4, 4))), (torch.randn(_IMAGE),))
    assert [module_path(n) for n in _layers(alone)] == ["dense.0"], "the model is the block: its largest layer"


def test_a_model_is_left_as_it_was():
    net = _made(lambda: nn.Sequential(nn.ReLU(), _RepVGG((4, 8), 2), _RepVGG((8, 8))))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    capture(net, (torch.randn(_IMAGE),))
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_sums_of_many_terms():
    graph = fx.Graph()
    total = graph.placeholder("x")
    for _ in range(2000):
        total = graph.call_function(_aten.sub.Tensor, (total, 1.0))
    graph.output(total)
    for node in graph.nodes:
        node.meta["val"] = torch.empty(2)
    terms = branches._terms(total)
    assert [t.sign for t in terms] == [1, *[-1] * 2000]


def test_half_precision_stays_half():
    net = _made(lambda: _Net(lambda m, x: m.a(x) + m.b(x), _conv(), _conv(1))).bfloat16()
    captured = capture(net, (torch.randn(_IMAGE).bfloat16(),))
    (layer,) = _layers(captured)
    assert {a.meta["val"].dtype for a in layer.args[1:3]} == {torch.bfloat16}


def test_norms_that_are_trained_again_keep_their_branches():
    net = _made(lambda: nn.Sequential(nn.ReLU(), _RepVGG((4, 4))))
    assert len(_layers(capture(net, (torch.randn(_IMAGE),), keep_norms=True))) == 2
