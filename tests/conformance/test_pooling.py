"""Average, maximum and global pools between convolutions."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import nn

from tests.conformance.blocks import IMAGE, conv_bn


class _Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.fc = conv_bn(8, 8, act=nn.ReLU()), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.a(x).mean([2, 3]))


def _between(pool):
    return nn.Sequential(conv_bn(8, 8, act=nn.ReLU()), pool, nn.Conv2d(8, 8, 1))


@pytest.mark.parametrize(
    "pool", [nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(2), nn.AdaptiveAvgPool2d((4, None))], ids=str
)
def test_average(tester, pool):
    (
        tester(lambda: _between(pool), IMAGE, batches=(1,))
        .check_points(openvino=(3, 2), onnxruntime=(4, 2))
        .check_int8({"conv2d": 2, "avg_pool": 1})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


@pytest.mark.parametrize(
    "pool",
    [
        *(nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
        *(nn.AvgPool2d(2, ceil_mode=True), nn.AvgPool2d(3, 1, ceil_mode=True)),
    ],
    ids=str,
)
def test_average_of_values_of_both_signs(tester, pool):
    """Zeros around an image are the zero of its grid; a window that ends at the edge needs no ceil mode."""
    tested = tester(lambda: nn.Sequential(nn.Conv2d(8, 8, 3), pool, nn.Conv2d(8, 8, 1)), IMAGE, batches=(1,))
    tested.check_int8({"conv2d": 2, "avg_pool": 1}).check_float_kernels(openvino=set(), onnxruntime=set())
    tested.run_and_compare()


def test_average_behind_a_pad(tester):
    """OpenVINO makes one operation of the two."""
    tested = tester(
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.ZeroPad2d(1), nn.AvgPool2d(2), nn.Conv2d(8, 8, 1)), IMAGE
    )
    tested.check_int8({"conv2d": 2}, openvino={"conv2d": 2, "avg_pool": 1}).run_and_compare()


def test_average_over_the_edge(tester):
    tested = tester(lambda: _between(nn.AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False)), IMAGE)
    tested.check_int8({"conv2d": 2, "avg_pool": 1}, openvino={"conv2d": 2}).run_and_compare()
    if tested.backend.name == "openvino":
        assert "over the edge" in tested.float_reasons["avg_pool"]


def test_global(tester):
    (
        tester(lambda: _between(nn.AdaptiveAvgPool2d(1)), IMAGE, batches=(1,))
        .check_points(openvino=(3, 2), onnxruntime=(4, 2))
        .check_int8({"conv2d": 2, "global_avg_pool": 1})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_mean_over_the_image(tester):
    (
        tester(_Mean, IMAGE, batches=(1,))
        .check_points(openvino=(3, 2), onnxruntime=(4, 2))
        .check_int8({"conv2d": 1, "linear": 1, "global_avg_pool": 1})
        .run_and_compare()
    )


def test_uneven_cells_stay_float(tester):
    tested = tester(lambda: _between(nn.AdaptiveAvgPool2d(3)), IMAGE).check_points(openvino=(2, 2), onnxruntime=(4, 2))
    tested.check_int8({"conv2d": 2}).run_and_compare()
    assert "adaptive_avg_pool" in tested.float_reasons


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.AdaptiveMaxPool2d(1)], ids=str)
def test_maximum_passes_the_grid_on(tester, pool):
    (
        tester(lambda: _between(pool), IMAGE)
        .check_points(openvino=(2, 2), onnxruntime=(4, 2))
        .check_int8({"conv2d": 2})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_one_dimension(tester):
    def model():
        return nn.Sequential(
            nn.Conv1d(8, 8, 3), nn.ReLU(), nn.MaxPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Conv1d(8, 4, 1)
        )  # fmt: skip

    (
        tester(model, (2, 8, 16))
        .check_points(openvino=(3, 2), onnxruntime=(5, 2))
        .check_int8({"conv1d": 2, "global_avg_pool": 1})
        .run_and_compare()
    )


class _PooledFloats(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(8, 4, 3)

    def forward(self, x):
        return self.layer(F.max_pool2d(x.sin(), 3, 2, 1))


def test_maximum_of_floats(tester):
    """ONNX Runtime pools floats before it quantizes: its pool of integers is slow outside of int8 layers."""
    tested = tester(_PooledFloats, IMAGE, batches=(1,)).check_int8({"conv2d": 1}).run_and_compare()
    if tested.backend.name == "onnxruntime":
        assert [p.node for p in tested.plan.points if p.kind == "activation"][:1] == ["max_pool2d"]
