"""Layer norm with its MLP, and group norm: the norms stay float, what multiplies is int8."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from tests.conformance.blocks import IMAGE


class _MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.a, self.b = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x):
        return x + self.b(F.gelu(self.a(self.norm(x))))


def test_layer_norm_mlp(tester):
    tested = tester(_MLP, (2, 6, 16), batches=(1,)).check_points(openvino=(2, 2), onnxruntime=(2, 2))
    tested.check_int8({"linear": 2}).run_and_compare()
    if not tested.backend.simulated_only:
        assert {"layer_norm", "add"} <= set(tested.float_reasons)


def test_group_norm(tester):
    (
        tester(lambda: nn.Sequential(nn.Conv2d(8, 16, 3), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 8, 1)), IMAGE)
        .check_points(openvino=(2, 2), onnxruntime=(4, 2))
        .check_int8({"conv2d": 2})
        .run_and_compare()
    )
