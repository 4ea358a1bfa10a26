"""The fast form of a graph computes what the plain one does, from the same parameters."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razordeploy.capture.export import capture
from razordeploy.capture.fast import fast_copy, fast_input, fast_linear


class _Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.first, self.second = nn.Linear(8, 600), nn.Linear(600, 5, bias=False)

    def forward(self, x):
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        return self.second(F.gelu(self.first(tokens)).roll(1, 1)).mean(1)


def test_the_fast_copy_computes_the_same_and_shares_the_linear_weights():
    torch.manual_seed(0)
    net, x = _Mixed(), torch.randn(2, 3, 9, 9)
    captured = capture(net, (x,))
    copy = fast_copy(captured.graph_module)
    with torch.inference_mode():
        torch.testing.assert_close(copy(fast_input(x)), net(x), rtol=1e-5, atol=1e-6)
    targets = [n.target for n in copy.graph.nodes if n.op == "call_function"]
    assert targets.count(fast_linear) == 2
    own = {p.data_ptr() for p in net.parameters()}
    assert [p.dim() for p in copy.parameters() if p.data_ptr() not in own] == [4]
    assert net.conv.weight.is_contiguous()
    assert torch.ops.aten.linear.default in [n.target for n in captured.graph.nodes]


@pytest.mark.parametrize("shape", [(3,), (0, 3), (4, 3), (2, 4, 3), (2, 5, 4, 3)], ids=str)
@pytest.mark.parametrize("strided", [False, True])
def test_the_fast_linear_layer_takes_any_rank_and_stride(shape, strided):
    torch.manual_seed(0)
    x = torch.randn(*shape, 2)[..., 0] if strided else torch.randn(shape)
    weight, bias = torch.randn(7, 3), torch.randn(7)
    with torch.inference_mode():
        torch.testing.assert_close(fast_linear(x, weight, bias), F.linear(x, weight, bias))
        torch.testing.assert_close(fast_linear(x, weight), F.linear(x, weight))


def test_sums_of_integers_are_exact():
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randint(-127, 128, (m, 1000), generator=generator).float() for m in (64, 32))
    expected = x.long() @ weight.long().t()
    with torch.inference_mode():
        assert torch.equal(fast_linear(x, weight).long(), expected)


def test_gradients_and_other_dtypes_still_work():
    x, weight = torch.randn(4, 3, requires_grad=True), torch.randn(2, 3)
    fast_linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(4, 3))
    assert fast_linear(torch.ones(2, 3, dtype=torch.float64), weight.double()).dtype == torch.float64
