"""The normal form of captured graphs: functional, flat, without no-ops; the numbers are those of the eager model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razordeploy.capture.export import capture

_aten = torch.ops.aten


class _Net(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.conv, self.body = nn.Conv2d(4, 4, 1), body
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        return self.body(self, x)


def _write_slice(net, x):
    x = net.conv(x)
    x[:, :2] += 1
    return x


def _view_before_write(net, x):
    x = net.conv(x)
    y = x.view(x.shape[0], -1)
    x.add_(1)
    return y


def _view_of_a_view(net, x):
    x = net.conv(x)
    y = x.view(x.shape[0], -1).unsqueeze(1)
    x.add_(1)
    return y * 2


def _relu_on_a_view(net, x):
    x = net.conv(x)
    F.relu_(x.flatten(2))
    return x


def _dropout_is_an_alias(net, x):
    x = net.conv(x)
    y = F.dropout(x, 0.5, net.training)
    y.add_(1)
    return x + y


def _contiguous_is_an_alias(net, x):
    x = net.conv(x)
    y = x.contiguous()
    y.mul_(2)
    return x + y


def _detach_is_an_alias(net, x):
    x = net.conv(x)
    x.detach().add_(1)
    return x


def _expand_is_an_alias(net, x):
    x = net.conv(x)
    y = x.expand(2, *x.shape)[0]
    x.add_(1)
    return y


def _write_a_chunk(net, x):
    x = net.conv(x)
    left, right = x.chunk(2, 1)
    left.add_(right)
    return x


def _assign_a_channel(net, x):
    x = net.conv(x)
    x[:, 0] = 0
    return net.conv(x)


def _result_and_operand(net, x):
    x = net.conv(x)
    return x + x.relu_()


def _augmented(net, x):
    x = net.conv(x)
    y = x
    y += x
    return x * y


def _write_input(net, x):
    x.add_(1)
    return net.conv(x)


def _count_calls(net, x):
    net.calls += 1
    return net.conv(x)


def _copy(net, x):
    y = net.conv(x).clone()
    y.copy_(net.conv(x + 1))
    return y


_BODIES = [
    _write_slice, _view_before_write, _view_of_a_view, _relu_on_a_view, _dropout_is_an_alias, _contiguous_is_an_alias,
    _detach_is_an_alias, _expand_is_an_alias, _write_a_chunk, _assign_a_channel, _result_and_operand, _augmented,
    _write_input, _count_calls, _copy,
]  # fmt: skip


@pytest.mark.parametrize("body", _BODIES, ids=lambda f: f.__name__.strip("_"))
def test_in_place_operations_become_functional(body):
    torch.manual_seed(0)
    net, x = _Net(body).eval(), torch.randn(2, 4, 3, 3)
    captured = capture(net, (x.clone(),))
    given = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(captured.graph_module(given), net(x.clone()))
    assert torch.equal(given, x), "the graph writes into its input"
    written = [n for n in captured.graph.nodes if n.op == "call_function" and getattr(n.target, "_schema", None)
               and n.target._schema.is_mutable]  # fmt: skip
    assert not written


def _targets(captured):
    return [n.target for n in captured.graph.nodes if n.op == "call_function"]


def test_no_ops_are_dropped():
    net = nn.Sequential(nn.Dropout(0.5), nn.Identity(), nn.Conv2d(4, 4, 1), nn.Dropout2d(0.5), nn.Flatten(2))
    assert _targets(capture(net, (torch.randn(2, 4, 3, 3),))) == [_aten.conv2d.default, _aten.flatten.using_ints]


def test_what_adds_nothing_is_dropped():
    net = _Net(lambda net, x: sum([net.conv(x), x * 1]) / 1.0 - 0)
    assert _targets(capture(net, (torch.randn(2, 4, 3, 3),))) == [_aten.conv2d.default, _aten.add.Tensor]


def test_a_new_type_is_kept():
    net = _Net(lambda net, x: net.conv(x) + (x.argmax(1, keepdim=True) * 1.0))
    assert _aten.mul.Tensor in _targets(capture(net, (torch.randn(2, 4, 3, 3),)))


def test_a_concatenation_of_one_tensor_is_dropped():
    net = _Net(lambda net, x: torch.cat([net.conv(torch.cat([x], 1)), x], 1))
    assert _targets(capture(net, (torch.randn(2, 4, 3, 3),))) == [_aten.conv2d.default, _aten.cat.default]


def test_views_become_reshapes_that_take_channels_last():
    net = _Net(lambda net, x: net.conv(x).view(x.shape[0], -1))
    captured = capture(net, (torch.randn(2, 4, 3, 3),))
    x = torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(captured.graph_module(x), net.conv(x).reshape(2, -1))


def test_a_shared_weight_is_one_node_and_unused_parameters_are_forgotten():
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)).eval()
    net[3].weight = net[2].weight
    captured = capture(net, (torch.randn(2, 4, 3, 3),))
    convs = [n for n in captured.graph.nodes if n.target is _aten.conv2d.default]
    assert convs[1].args[1] is convs[2].args[1]
    kept = {n for n, _ in captured.graph_module.named_parameters()} | {
        n for n, _ in captured.graph_module.named_buffers()
    }
    assert len(kept) == 5  # folded weight and bias, the shared weight, two biases


def test_signatures_are_flattened():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, inputs, scale):
            return {"sum": inputs["a"] + inputs["b"][0] * scale, "more": [self.conv(inputs["a"])]}

    a, b, scale = (torch.randn(2, 4, 3, 3) for _ in range(3))
    net = Nested()
    captured = capture(net, ({"a": a, "b": [b]},), {"scale": scale})
    with torch.no_grad():
        first, second = captured.graph_module(a, b, scale)
        torch.testing.assert_close(first, a + b * scale)
        torch.testing.assert_close(second, net.conv(a))
    assert len(captured.placeholders()) == len(captured.example_inputs) == 3


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
def test_a_mean_over_the_image_keeps_its_axes(axes):
    captured = capture(_Net(lambda net, x: net.conv(x).mean(axes)), (torch.randn(2, 4, 3, 3),))
    assert _targets(captured) == [_aten.conv2d.default, _aten.mean.dim, _aten.flatten.using_ints]
    x = torch.randn(2, 4, 3, 3)
    conv = captured.graph_module
    assert conv(x).shape == (2, 4)


@pytest.mark.parametrize(
    ("rank", "size", "plain"),
    [(1, 1, "mean"), (2, 1, "mean"), (3, 1, "mean"), (2, 2, "avg_pool2d"), (2, 4, "adaptive_avg_pool2d")],
)
def test_adaptive_pools_become_plain_ones(rank, size, plain):
    pool, x = getattr(nn, f"AdaptiveAvgPool{rank}d")(size), torch.randn(2, 4, *[6] * rank)
    captured = capture(pool, (x,))
    assert [t._schema.name.partition("::")[2] for t in _targets(captured)] == [plain]
    torch.testing.assert_close(captured.graph_module(x), pool(x))


def test_products_with_a_constant_are_linear_layers():
    class Products(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Parameter(torch.randn(*s)) for s in ((6, 4), (4, 3), (3,)))

        def forward(self, x):
            return torch.addmm(self.c, x @ self.a, self.b), x @ x.t()

    net, x = Products(), torch.randn(5, 6)
    captured = capture(net, (x,), dynamic_batch=False)
    linear = _aten.linear.default
    assert [t for t in _targets(captured) if t is not _aten.t.default][:2] == [linear, linear]
    assert _aten.matmul.default in _targets(captured)
    with torch.no_grad():
        for got, want in zip(captured.graph_module(x), net(x), strict=True):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("order", ["product first", "bias first", "bias of another shape", "product read twice"])
def test_bias_added_to_a_product(order):
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.rows = (nn.Parameter(torch.randn(*s)) for s in ((6, 4), (4,), (5, 4)))

        def forward(self, x):
            y = x @ self.a
            if order == "product first":
                return y + self.b
            if order == "bias first":
                return self.b + y
            return y + self.rows if order == "bias of another shape" else y * (y + self.b)

    net, x = Product(), torch.randn(2, 5, 6)
    captured = capture(net, (x,))
    targets = [t for t in _targets(captured) if t is not _aten.t.default]
    joined = order.endswith("first")
    assert (targets == [_aten.linear.default]) is joined
    assert targets[0] is _aten.linear.default
    with torch.no_grad():
        torch.testing.assert_close(captured.graph_module(x), net(x))
