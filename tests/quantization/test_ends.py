"""First and last layers, and the grids that a recipe gives them."""

from __future__ import annotations

import torch
from torch import nn

from razordeploy.backends.registry import find_backend
from razordeploy.capture.export import capture
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.models.digits import resnet8
from razordeploy.quantization.ends import ends_of
from razordeploy.quantization.qconfig import settings_for


def _named(model: nn.Module, *inputs: torch.Tensor) -> dict[str, tuple[str, ...]]:
    return {n.name: ends_of(n) for n in capture(model, inputs).graph.nodes if ends_of(n)}


def test_stem_and_head_of_a_residual_network():
    assert _named(resnet8(width=4), torch.zeros(2, 1, 8, 8)) == {"conv2d": ("input",), "linear": ("output",)}


def test_branches_and_a_single_layer():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.a(x).relu() + self.b(x.flip(1))
            return self.c(y), y.softmax(1)

    assert _named(Two(), torch.zeros(2, 4)) == {
        "linear": ("input", "output"),
        "linear_1": ("input", "output"),
        "linear_2": ("output",),
    }


def test_the_recipe_gives_them_grids_of_their_own():
    four, eight = ({"w_qscheme": {"bit": b}, "a_qscheme": {"bit": b}} for b in (4, 8))
    config = QuantizeConfig.parse({"global_qconfig": four, "input_layer": eight, "output_layer": "float"}, "test")
    captured, backend = capture(resnet8(width=4), (torch.zeros(2, 1, 8, 8),)), find_backend("academic")
    plan = backend.plan(captured, settings_for(backend.spec, config))
    bits = {(p.kind, p.users[0]): p.scheme.bits for p in plan.points}
    assert bits.pop(("activation", "conv2d")) == bits.pop(("weight", "conv2d")) == 8
    assert set(bits.values()) == {4}
    reasons = {o.node: o.reason for o in plan.ops if not o.int8}
    assert reasons["linear"] == "the recipe's output_layer is 'float'"
