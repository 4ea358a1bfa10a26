"""A norm in front of a float layer that reads its channels as parts of the batch (RepMLP's partitions)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import razordeploy as rd

pytest.importorskip("openvino", reason="needs openvino")


class _Partition(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size, places = size, size * size
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.places, self.tail = nn.Conv2d(places, places, 1), nn.Conv2d(8, 8, 3, padding=1)
        nn.init.uniform_(self.norm.weight, 0.5, 2)
        nn.init.normal_(self.norm.bias)
        nn.init.uniform_(self.norm.running_var, 0.5, 3)

    def forward(self, x):
        n = self.size
        x = self.norm(self.stem(x).relu())
        x = x.reshape(-1, 8, 1, n, 1, n).permute(0, 2, 4, 1, 3, 5).reshape(-1, n * n, 1, 1)
        x = self.places(x).reshape(-1, 1, 1, 8, n, n).permute(0, 3, 1, 4, 2, 5).reshape(-1, 8, n, n)
        return self.tail(x)


@pytest.mark.parametrize("size", (8, 7))
@pytest.mark.parametrize("skip", ((), ("places",)))
def test_it_computes_what_the_float_model_does(size, skip, tmp_path):
    """64 places, a multiple of 8 channels, came out wrong; 49 could not be compiled."""
    torch.manual_seed(0)
    model, x = _Partition(size).eval(), torch.randn(8, 3, size, size)
    made = rd.ptq(
        model, [x] * 4, example_inputs=(x[:2],), backend="openvino", out_dir=tmp_path, quantize={"skip": list(skip)}
    )
    engine = rd.Engine(made)
    found, expected = engine(x.numpy()), model(x).detach().numpy()
    assert engine.coverage().int8 == 3 - len(skip)
    assert float((found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)) > 0.999
