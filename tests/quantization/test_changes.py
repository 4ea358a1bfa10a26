"""What training and algorithms changed, written and read back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.capture.export import capture
from razordeploy.errors import UsageError
from razordeploy.quantization.changes import with_changes, write_changes
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.plan import QuantPlan

PLAN = QuantPlan(backend="", points=(), ops=())


def draft_of(captured) -> Draft:
    return Draft(captured=captured, plan=PLAN, params={}, replan=lambda *_: PLAN)


@pytest.fixture
def captured():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1, bias=False))
    return capture(net, (torch.randn(2, 2, 5, 5),))


def test_an_unchanged_draft_writes_nothing(captured, tmp_path):
    assert write_changes(captured, draft_of(captured).copied(), tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_changed_and_added_constants_come_back(captured, tmp_path):
    draft = draft_of(captured).copied()
    first, last = [n for n in draft.captured.graph.nodes if n.op == "call_function" and "conv2d" in str(n.target)]
    draft.set_constant(first.args[1], draft.constant(first.args[1]) * 2)
    draft.set_constant(draft.bias_of(last), torch.arange(4.0))
    draft.refresh()
    files = write_changes(captured, draft, tmp_path)
    found = with_changes(captured, tmp_path / files["changes"])
    x = torch.randn(3, 2, 5, 5)
    assert torch.equal(found.graph_module(x), draft.captured.graph_module(x))
    assert not torch.equal(found.graph_module(x), captured.graph_module(x))
    assert [n.name for n in found.graph.nodes if n.op == "call_function"] == [
        n.name for n in captured.graph.nodes if n.op == "call_function"
    ]


def test_of_another_model_is_refused(captured, tmp_path):
    draft = draft_of(captured).copied()
    layer = next(n for n in draft.captured.graph.nodes if n.op == "call_function")
    draft.set_constant(layer.args[1], draft.constant(layer.args[1]) * 2)
    write_changes(captured, draft, tmp_path)
    other = capture(nn.Linear(3, 2), (torch.randn(2, 3),))
    with pytest.raises(UsageError, match="does not belong to this model"):
        with_changes(other, tmp_path / "changes.safetensors")
    (tmp_path / "changes.safetensors").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="does not belong to this model"):
        with_changes(captured, tmp_path / "changes.safetensors")
