"""Constants that are built by writing in place: folded where nothing else can see the writes, else left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.capture import normalize
from razordeploy.capture.export import capture, export_program


class _Net(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.register_buffer("table", torch.arange(4.0))
        self.body = body

    def forward(self, x):
        return self.body(self, x)


def _window_mask(net, x):
    mask = torch.zeros(1, 4)
    for count, part in enumerate((slice(0, -3), slice(-3, -1), slice(-1, None))):
        mask[:, part] = count
    return x + mask.masked_fill(mask != 0, -100.0)


def _read_between(net, x):
    mask = torch.zeros(4)
    y = x + mask
    mask[1:] = 2.0
    return y * mask


def _read_through_a_view(net, x):
    mask = torch.zeros(2, 4)
    row = mask[0]
    y = x + row
    row[1:] = 3.0
    return y * mask[0]


def _written_by_data(net, x):
    mask = torch.zeros(4)
    mask[:2] = x[0, :2]
    mask[3] = 5.0
    return x * mask


def _view_of_unknown_size(net, x):
    mask = torch.zeros(1, 4)
    view = mask.expand(x.shape[0], 4)
    mask[:, 1] = 7.0
    return x + view


def _of_a_buffer(net, x):
    copy = net.table.clone()
    copy[1:] = 9.0
    return x * copy + net.table


def _random(net, x):
    noise = torch.rand(4)
    noise[:] = 1.0
    return x * noise


BODIES = [
    _window_mask, _read_between, _read_through_a_view, _written_by_data, _view_of_unknown_size, _of_a_buffer, _random
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_the_graph_computes_what_the_model_does(body):
    net, x = _Net(body), torch.randn(3, 4)
    module = capture(net, (x,)).graph_module
    torch.testing.assert_close(module(x), net(x))


def test_a_window_mask_needs_no_second_trace(monkeypatch):
    found = []
    functionalize = normalize._functionalize
    monkeypatch.setattr(normalize, "_functionalize", lambda module: found.append(functionalize(module)) or found[-1])
    graph = capture(_Net(_window_mask), (torch.randn(3, 4),)).graph
    assert found == [True]
    assert [n.target for n in graph.nodes if n.op == "call_function"] == [torch.ops.aten.add.Tensor]


def _mask_and_zeros(net, x):
    return _window_mask(net, x) + torch.zeros(4)


def test_the_plain_graph_folds_only_what_is_written(monkeypatch):
    """Torch's own functionalization takes as long as the capture, and constants of channels have to stay open."""
    x = torch.randn(2, 4)
    program = export_program(_Net(_mask_and_zeros), (x,)).program
    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", None)
    graph_module = normalize.plain_graph(program)
    assert torch.equal(graph_module(x), _mask_and_zeros(None, x))
    made = [node.target for node in graph_module.graph.nodes if node.target is torch.ops.aten.zeros.default]
    assert len(made) == 1 and not any(
        "copy_" in str(n.target) or "fill_." in str(n.target) for n in graph_module.graph.nodes
    )
