"""Self attention, written out and as ``scaled_dot_product_attention``: projections in int8.

The products stay float, but for OpenVINO's one kernel for both, which a measurement on calibration data allows.
"""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import nn


class _Attention(nn.Module):
    def __init__(self, fused):
        super().__init__()
        self.qkv, self.project, self.fused = nn.Linear(16, 48), nn.Linear(16, 16), fused

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) * 8**-0.5).softmax(-1) @ v
        return self.project(y.transpose(1, 2).reshape(n, t, c))


@pytest.mark.parametrize("fused", [False, True])
def test_attention(tester, fused):
    tested = tester(lambda: _Attention(fused), (2, 6, 16), batches=(1,))
    tested.check_points(openvino=(4, 2), onnxruntime=(4, 2)).check_int8(
        {"linear": 2}, openvino={"linear": 2, "attention_scores": 1, "attention_values": 1}
    ).run_and_compare()
    if not tested.backend.simulated_only:
        products = set() if tested.backend.name == "openvino" else {"attention_scores", "attention_values"}
        assert {"softmax"} | products <= set(tested.float_reasons)
