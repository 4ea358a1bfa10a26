"""Transposed convolutions: int8 on OpenVINO with zero point 0, one group and no dilation; float on ONNX Runtime."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import nn

from tests.conformance.blocks import IMAGE, conv_bn


class _Decoder(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.a, self.up = conv_bn(8, 8, act=nn.ReLU()), nn.ConvTranspose2d(8, 16, 3, 2, 1, **options)
        self.norm, self.head = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.up(self.a(x)))))


def test_batch_norm_folds_into_it(tester):
    (
        tester(lambda: _Decoder(output_padding=1), IMAGE, batches=(1,))
        .check_points(openvino=(3, 3), onnxruntime=(4, 2))
        .check_int8({"conv2d": 2, "conv_transpose2d": 1}, onnxruntime={"conv2d": 2})
        .check_float_kernels(openvino=set())
        .run_and_compare()
    )


@pytest.mark.parametrize(
    ("options", "why"), [({"groups": 2}, "grouped"), ({"groups": 8}, "grouped"), ({"dilation": 2}, "dilated")]
)
def test_left_in_float(tester, options, why):
    tested = tester(lambda: _Decoder(**options), IMAGE).check_points(openvino=(2, 2), onnxruntime=(4, 2))
    tested.check_int8({"conv2d": 2}).run_and_compare()
    if tested.backend.name == "openvino":
        assert why in tested.float_reasons["conv_transpose2d"]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_input_of_both_signs(tester, rank):
    """With an affine grid's zero point OpenVINO would run it in float."""
    up, conv = getattr(nn, f"ConvTranspose{rank}d"), getattr(nn, f"Conv{rank}d")
    tested = tester(lambda: nn.Sequential(up(8, 12, 3, 2, 1, 1), nn.ReLU(), conv(12, 8, 1)), (2, 8, *[6] * rank))
    counts = {f"conv{rank}d": 1, f"conv_transpose{rank}d": 1}
    tested.check_int8(counts, onnxruntime={"conv3d": 0} if rank == 3 else {f"conv{rank}d": 1}).run_and_compare()
    if tested.backend.name == "openvino":
        first = next(p for p in tested.plan.points if p.kind == "activation")
        assert first.scheme.signed and first.scheme.symmetric
