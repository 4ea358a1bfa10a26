"""Self attention, written out and as ``scaled_dot_product_attention``: projections in int8.

The products stay float, but for OpenVINO's one kernel for both, which a measurement on calibration data allows.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn


class _Attention(nn.Module):
    def __init__(self, fused, read_again=None, by=None):
        super().__init__()
        self.qkv, self.project, self.fused = nn.Linear(16, 48), nn.Linear(16, 16), fused
        self.read_again, self.by = read_again, by or (lambda x: x)

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) * 8**-0.5).softmax(-1) @ v
        y = self.project(y.transpose(1, 2).reshape(n, t, c))
        if self.read_again is None:
            return y
        return y + self.by((q, k, v)[self.read_again].transpose(1, 2).reshape(n, t, c))


@pytest.mark.parametrize("fused", [False, True])
def test_attention(tester, fused):
    tested = tester(lambda: _Attention(fused), (2, 6, 16), batches=(1,))
    tested.check_points(openvino=(4, 2), onnxruntime=(4, 2)).check_int8(
        {"linear": 2}, openvino={"linear": 2, "attention_scores": 1, "attention_values": 1}
    ).run_and_compare()
    if not tested.backend.simulated_only:
        products = set() if tested.backend.name == "openvino" else {"attention_scores", "attention_values"}
        assert {"softmax"} | products <= set(tested.float_reasons)


@pytest.mark.parametrize("by", [None, torch.sin], ids=["a sum", "a float operation"])
@pytest.mark.parametrize("operand", range(3), ids=["queries", "keys", "values"])
def test_operands_with_other_readers(tester, operand, by):
    """Both readers get the one grid that the attention needs."""
    tested = tester(lambda: _Attention(False, operand, by), (2, 6, 16)).run_and_compare()
    attention = {"attention_scores": 1, "attention_values": 1} | ({"add": 1} if by is None else {})
    tested.check_int8({"linear": 2}, openvino={"linear": 2, **attention})
