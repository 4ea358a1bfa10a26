"""Convolutions over 1-D and 3-D signals."""

from __future__ import annotations

from torch import nn


def _one_d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(8, 16, 3, padding=1),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Conv1d(16, 16, 3, groups=16),
        nn.Conv1d(16, 8, 1),
    )


def _three_d() -> nn.Module:
    return nn.Sequential(nn.Conv3d(4, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, 1))


def test_conv1d(tester):
    (
        tester(_one_d, (2, 8, 32), batches=(1,))
        .check_points(openvino=(3, 3), onnxruntime=(4, 3))
        .check_int8({"conv1d": 2, "depthwise_conv1d": 1})
        .run_and_compare()
    )


def test_conv3d(tester):
    (
        tester(_three_d, (2, 4, 4, 6, 6), batches=(1,))
        .check_points(openvino=(2, 2), onnxruntime=(0, 0))
        .check_int8({"conv3d": 2}, onnxruntime={})
        .run_and_compare()
    )
