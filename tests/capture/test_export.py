"""Dynamic and static batches, and the texts of what cannot be captured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from razordeploy.capture.export import capture
from razordeploy.errors import ModelError

X = torch.randn(2, 4, 6, 6)


class _Net(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body, self.conv = body, nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.body(self, x)


def _line(text):
    """Line of this file on which ``text`` stands."""
    return next(
        i for i, line in enumerate(Path(__file__).read_text().splitlines(), 1) if text in line and "_line(" not in line
    )


def _branch(net, x):
    if x.sum() > 0:  # data decides
        return x
    return net.conv(x)


def _item(net, x):
    return net.conv(x)[:, : int(x.argmax().item())]  # a size from data


def _loop(net, x):
    for row in range(int(x[0, 0, 0, 0])):  # as often as data says
        x = x + row
    return x


@pytest.mark.parametrize(("body", "where"), [(_branch, "# data decides"), (_loop, "# as often as data says")])
def test_data_dependent_code_names_operation_and_line(body, where):
    with pytest.raises(ModelError) as caught:
        capture(_Net(body), (X.abs(),))
    text = str(caught.value)
    assert "torch.export cannot capture _Net" in text
    assert f"{Path(__file__).name}:{_line(where)}" in text
    assert "independent of tensor values" in text
    assert "\n" not in text


def test_a_size_from_data_is_refused_or_captured_right():
    with pytest.raises(ModelError, match=f"{Path(__file__).name}:{_line('# a size from data')}"):
        capture(_Net(_item), (X,))


def test_wrong_example_inputs_are_told_apart():
    with pytest.raises(
        ModelError, match=r"does not run on the example inputs of shape \[\(2, 3, 6, 6\)\].*deploy.input_shapes"
    ):
        capture(nn.Conv2d(4, 4, 1), (torch.randn(2, 3, 6, 6),))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_dynamic_batch(batch):
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(144, 3))
    captured = capture(net, (X[:1].repeat(batch, 1, 1, 1),))
    assert captured.dynamic_batch and captured.batch_size == max(batch, 2) and not captured.warnings
    for n in (1, 4):
        x = torch.randn(n, 4, 6, 6)
        with torch.no_grad():
            torch.testing.assert_close(captured.graph_module(x), net(x))


def test_batch_baked_in_falls_back():
    net = _Net(lambda net, x: net.conv(x).reshape(2, -1))
    captured = capture(net, (X,))
    assert not captured.dynamic_batch and captured.batch_size == 2
    assert "fixes its batch size" in captured.warnings[0]
    with torch.no_grad():
        torch.testing.assert_close(captured.graph_module(X), net(X))


def test_static_on_request():
    captured = capture(nn.Conv2d(4, 4, 1), (X[:1],), dynamic_batch=False)
    assert not captured.dynamic_batch and captured.batch_size == 1 and not captured.warnings


def test_only_inputs_with_the_batch_of_the_first_are_dynamic():
    class Two(nn.Module):
        def forward(self, x, table):
            return x @ table

    captured = capture(Two(), (torch.randn(2, 4), torch.randn(4, 3)))
    x, table = torch.randn(7, 4), torch.randn(4, 3)
    assert captured.dynamic_batch
    torch.testing.assert_close(captured.graph_module(x, table), x @ table)


@pytest.mark.parametrize("keyword", [False, True])
def test_dynamic_batch_of_any_number_of_inputs(keyword):
    class Any(nn.Module):
        def forward(self, *xs, gain=None):
            total = torch.stack(xs).sum(0)
            return total if gain is None else total * gain

    kwargs = {"gain": torch.ones(2, 1)} if keyword else {}
    captured = capture(Any(), (torch.ones(2, 3), torch.ones(2, 3)), kwargs)
    assert captured.dynamic_batch
    more = [torch.ones(5, 3), torch.ones(5, 3), *([torch.ones(5, 1)] if keyword else [])]
    assert captured.graph_module(*more).shape == (5, 3)


def test_training_mode_comes_back_after_a_failure():
    net = _Net(_branch).train()
    with pytest.raises(ModelError):
        capture(net, (X,))
    assert net.training
