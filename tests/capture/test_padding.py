"""Convolutions with named padding are captured with sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.capture.export import capture
from razordeploy.quantization.op_kinds import kind_of

_CASES = {
    "odd": (nn.Conv2d(4, 4, 3, padding="same"), 1),
    "dilated": (nn.Conv2d(4, 4, 3, padding="same", dilation=2), 1),
    "even": (nn.Conv2d(4, 4, 4, padding="same"), 2),
    "mixed": (nn.Conv2d(4, 4, (3, 2), padding="same"), 2),
    "valid": (nn.Conv2d(4, 4, 3, stride=2, padding="valid"), 1),
    "grouped": (nn.Conv2d(4, 8, 5, padding="same", groups=2, bias=False), 1),
    "one axis": (nn.Conv1d(4, 4, 6, padding="same"), 2),
    "three axes": (nn.Conv3d(4, 4, (1, 3, 5), padding="same"), 1),
}


@pytest.mark.parametrize("case", _CASES)
def test_is_the_same_convolution(case):
    layer, operations = _CASES[case]
    x = torch.randn(2, 4, *[9] * (layer.weight.dim() - 2))
    captured = capture(layer.eval(), (x,))
    kinds = [kind_of(n) for n in captured.graph.nodes if n.op == "call_function"]
    assert len(kinds) == operations
    assert kinds[-1] == f"conv{layer.weight.dim() - 2}d"
    assert not any("padding" in str(n.target) for n in captured.graph.nodes)
    torch.testing.assert_close(captured.graph_module(x), layer(x))


def test_depthwise_is_seen():
    layer = nn.Conv2d(4, 4, 9, padding="same", groups=4).eval()
    captured = capture(layer, (torch.randn(2, 4, 12, 12),))
    assert [kind_of(n) for n in captured.graph.nodes if n.op == "call_function"] == ["depthwise_conv2d"]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, (3, 5), padding=(1, 2), padding_mode="circular"),
        nn.Conv1d(4, 4, 4, padding="same", padding_mode="circular"),
        nn.CircularPad2d((0, 2, 3, 0)),
        nn.CircularPad3d(1),
    ],
    ids=str,
)
def test_circles_are_parts_joined(layer):
    x = torch.randn(2, 4, *[7] * {"2": 2, "1": 1, "3": 3}[type(layer).__name__[-2]])
    captured = capture(layer.eval(), (x,))
    assert not any(n.target is torch.ops.aten.pad.default for n in captured.graph.nodes)
    torch.testing.assert_close(captured.graph_module(x), layer(x))
    assert all(tuple(n.meta["val"].shape[1:]) == tuple(v.shape[1:]) for n, v in _values(captured, x))


def _values(captured, x):
    class Kept(torch.fx.Interpreter):
        def run_node(self, n):
            found = super().run_node(n)
            if n.op == "call_function":
                seen.append((n, found))
            return found

    seen: list = []
    Kept(captured.graph_module).run(x)
    return seen
