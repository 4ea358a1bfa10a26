"""What the runner says of the compiled graph."""

from __future__ import annotations

import numpy as np
import pytest

ov = pytest.importorskip("openvino", reason="needs openvino")

from razordeploy.backends.openvino.engine import OpenVINORunner  # noqa: E402


def test_a_layer_whose_weights_alone_are_integers_is_not_int8(tmp_path):
    from openvino import opset13 as ops

    generator = np.random.default_rng(0)
    x = ops.parameter([-1, 64], np.float32, name="x")
    weight = ops.convert(ops.constant(generator.integers(-127, 127, (32, 64), np.int8)), np.float32)
    scaled = ops.multiply(weight, ops.constant(generator.random((32, 1), np.float32)))
    product = ops.matmul(x, scaled, False, True)
    product.set_friendly_name("layer")
    # The values behind it are integers too, as in front of the next int8 layer.
    grid = [ops.constant(np.float32(v)) for v in (-128, 127, -128, 127)]
    ov.save_model(ov.Model([ops.fake_quantize(product, *grid, 256)], [x]), tmp_path / "m.xml", compress_to_fp16=False)
    runner = OpenVINORunner(tmp_path / "m.xml", 1)
    layers = [op for op in runner.runtime_ops() if op.type == "FullyConnected"]
    assert [op.int8 for op in layers] == [False], layers
