"""Activations behind a convolution: in its kernel on OpenVINO; on ONNX Runtime most are float between two pairs."""

from __future__ import annotations

import pytest
from torch import nn

from tests.conformance.blocks import IMAGE, conv_bn

_ACTIVATIONS = {
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


@pytest.mark.parametrize("kind", sorted(_ACTIVATIONS))
def test_activation(tester, kind):
    act = _ACTIVATIONS[kind]
    tested = tester(
        lambda: nn.Sequential(conv_bn(8, 16, act=act()), conv_bn(16, 8, act=act()), nn.Conv2d(8, 8, 1)), IMAGE
    )
    tested.check_points(openvino=(3, 3), onnxruntime=(6, 3))
    own = {kind: 2} if kind in {"hardswish", "leaky_relu", "sigmoid"} else {}
    tested.check_int8({"conv2d": 3}, onnxruntime={"conv2d": 3, **own}).check_float_kernels(
        openvino=set()
    ).run_and_compare()
    if tested.backend.name == "onnxruntime" and not own:
        assert "no int8 kernel" in tested.float_reasons[kind]
