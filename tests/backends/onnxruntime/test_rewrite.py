"""What is written for ONNX Runtime in another form than the model has it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

import razordeploy as rd


class _PostNorm(nn.Module):
    """A residual branch with the norm behind the sum."""

    def __init__(self):
        super().__init__()
        self.branch, self.norm, self.head = nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.norm(x + self.branch(torch.tanh(x))))


def test_a_sum_is_not_fused_with_the_norm_behind_it(tmp_path):
    """The fused kernel takes many times as long as the two operations."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    torch.manual_seed(0)
    net = _PostNorm().eval()
    data = [torch.randn(2, 5, 16) for _ in range(4)]
    artifact = rd.ptq(net, data, example_inputs=(data[0],), backend="onnxruntime", out_dir=tmp_path)
    engine = rd.load_engine(artifact)
    kernels = Counter(op.type for op in engine.runner.runtime_ops())
    assert kernels["Sum"] == 1, kernels
    assert kernels["LayerNormalization"] == 1, kernels
    assert not any("Skip" in kind for kind in kernels), kernels
    expected = net(data[0]).detach().numpy()
    assert np.abs(engine(data[0].numpy()) - expected).max() < 0.05 * np.abs(expected).max()
