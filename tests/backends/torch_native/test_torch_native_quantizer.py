"""Which additions run inside a kernel, and which grids are refused; nothing is compiled here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from razordeploy.backends.torch_native.backend import BACKEND
from razordeploy.capture.export import capture
from razordeploy.errors import RecipeError


class Block(nn.Module):
    """``combine`` says how the branch ``conv(x)`` and the shortcut ``x`` meet, between two convolutions."""

    def __init__(self, combine):
        super().__init__()
        self.stem, self.middle, self.conv, self.last = (nn.Conv2d(4, 4, 1) for _ in range(4))
        self.combine = combine

    def forward(self, x):
        x = functional.relu(self.stem(x))
        return self.last(self.combine(x, self.conv(functional.relu(self.middle(x)))))


@pytest.mark.parametrize("combine", [lambda x, y: x + y, lambda x, y: y + x])
def test_an_add_right_after_a_convolution_is_planned(combine, make_plan):
    plan = make_plan(Block(combine), (4, 4, 4))
    assert [(op.int8, op.reason) for op in plan.ops if op.kind == "add"] == [(True, None)]


@pytest.mark.parametrize(
    "combine",
    [
        lambda x, y: x + functional.relu(y),  # the kernel adds before it activates
        lambda x, y: torch.add(x, y, alpha=2),
        lambda x, y: y + y,
        lambda x, y: x + y + y,  # the convolution's result is needed twice
        lambda x, y: y + x.mean((2, 3), keepdim=True),  # broadcast
    ],
    ids=["relu", "alpha", "itself", "two readers", "broadcast"],
)
def test_an_add_that_no_kernel_can_take_stays_float(combine, make_plan):
    plan = make_plan(Block(combine), (4, 4, 4))
    adds = [op for op in plan.ops if op.kind == "add"]
    assert adds
    assert not any(op.int8 for op in adds)
    assert "right before it" in (adds[0].reason or "")
    # ... and then nobody rounds its operands on its behalf.
    assert not {op.node for op in adds} & {user for p in plan.points for user in p.users}


class Residual(nn.Module):
    """Linear layers around a residual stream."""

    def __init__(self):
        super().__init__()
        self.stem, self.up, self.down, self.head = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        x = functional.relu(self.stem(x))
        return self.head(x + self.down(functional.gelu(self.up(x))))


def test_an_add_behind_a_linear_layer_is_not_rounded(make_plan):
    plan = make_plan(Residual(), (8,))
    assert [(op.kind, op.int8) for op in plan.ops] == [*[("linear", True)] * 3, ("add", False), ("linear", True)]
    assert "add" not in {user for p in plan.points for user in p.users}


def test_an_add_whose_convolution_the_recipe_skips_stays_float(yaml_settings):
    captured = capture(Block(lambda x, y: x + y).eval(), (torch.randn(1, 4, 4, 4),))
    base = yaml_settings()

    def settings(node, kind, rule):
        found = base(node, kind, rule)
        return replace(found, skip="the recipe's skip names 'conv'") if node.name == "conv2d_2" else found

    plan = BACKEND.plan(captured, settings)
    reasons = {op.node: op.reason for op in plan.ops if not op.int8}
    assert set(reasons) == {"conv2d_2", "add"}


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": {"bits": 4}},
        {"activation": {"bits": 16}},
        {"activation": {"signed": True}},  # the convolution's kernel takes unsigned integers only
        {"weight": {"bits": 16}},
        {"weight": {"symmetric": False}},
        {"weight": {"signed": False, "symmetric_range": False}},
    ],
    ids=str,
)
def test_a_grid_that_the_kernels_do_not_have_is_refused(changes, make_plan):
    with pytest.raises(RecipeError, match=r"torch_native quantizes .* asks for \d+ bits.*; the academic backend"):
        make_plan(Block(lambda x, y: x + y), (4, 4, 4), **changes)


@pytest.mark.parametrize(("channels", "int8"), [(1, False), (2, True)])
def test_a_convolution_on_one_channel_stays_float(channels, int8, make_plan):
    # Measured: the packed kernel is off by half the output range there, and right from two channels on.
    plan = make_plan(nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), (channels, 8, 8))
    assert [op.int8 for op in plan.ops if op.kind == "conv2d"] == [int8, True]
