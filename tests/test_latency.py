"""Latency of engines as a cost, in the one call that gives all resources."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.errors import UsageError
from razordeploy.latency import engine_latency
from razordeploy.subnet.estimate import ResourceEstimator


def test_all_resources_in_one_call():
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 4))
    costs = {f"{kind}@onnxruntime": engine_latency("onnxruntime", int8=kind == "int8", seconds=0.1)
             for kind in ("float", "int8")}  # fmt: skip
    estimator = ResourceEstimator((1, 3, 8, 8), units={"params": "", "macs": ""}, cost=costs)
    found = estimator.estimate(model, 0.5)
    assert found["params"] == (3 * 9 * 4 + 4) + (4 * 9 * 4 + 4) + (4 * 16 * 4 + 4)
    assert found["flops"] > 0
    assert 0 < found["float@onnxruntime"] < 100
    assert 0 < found["int8@onnxruntime"] < 100
    assert model.training


def test_an_unknown_backend_is_refused_at_once():
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        engine_latency("openvin")
