"""Which operation is of which kind."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razordeploy.capture.export import capture
from razordeploy.quantization.op_kinds import KINDS, kind_of


class _Apply(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)


def _kinds(model, *shape):
    captured = capture(model.eval(), (torch.randn(shape),))
    return [kind_of(n) for n in captured.graph.nodes if n.op == "call_function"]


def test_no_overload_is_of_two_kinds():
    targets = [target for group in KINDS.values() for target in group]
    assert len(targets) == len(set(targets))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("groups", "channels_out", "prefix"), [(1, 8, ""), (2, 8, ""), (4, 8, "depthwise_"), (4, 4, "depthwise_")]
)
def test_convolutions(rank, groups, channels_out, prefix):
    conv = getattr(nn, f"Conv{rank}d")(4, channels_out, 3, groups=groups)
    assert _kinds(conv, 2, 4, *[5] * rank) == [f"{prefix}conv{rank}d"]


def test_one_channel_is_no_depthwise_convolution():
    assert _kinds(nn.Conv2d(1, 8, 3), 2, 1, 5, 5) == ["conv2d"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (lambda x: x.mean((2, 3), keepdim=True), "global_avg_pool"),
        (lambda x: F.adaptive_avg_pool2d(x, 1), "global_avg_pool"),
        (lambda x: x.mean((1, 2), keepdim=True), "mean"),
        (lambda x: x.mean(1), "mean"),
        (lambda x: F.adaptive_avg_pool2d(x, 4), "adaptive_avg_pool"),
        (lambda x: F.adaptive_avg_pool2d(x, 3), "avg_pool"),
        (lambda x: F.pad(x, (1, 1)), "pad"),
        (lambda x: F.pad(x, (1, 1), value=2.0), None),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "pad"),
        (F.tanh, "tanh"),
        (F.sigmoid, "sigmoid"),
        (lambda x: F.log_softmax(x, 1), "log_softmax"),
    ],
)
def test_kinds(body, kind):
    assert _kinds(_Apply(body), 2, 4, 6, 6) == [kind]
