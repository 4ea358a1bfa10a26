"""Convolution, batch norm and ReLU are one int8 operation; the last one of a network gives float."""

from __future__ import annotations

from torch import nn

from tests.conformance.blocks import IMAGE, conv_bn


def test_conv_bn_relu(tester):
    (
        tester(lambda: conv_bn(8, 16, act=nn.ReLU()), IMAGE, batches=(1, 3, 8))
        .check_points(openvino=(1, 1), onnxruntime=(2, 1), torch_native=(1, 1), academic=(1, 1))
        .check_int8({"conv2d": 1})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_conv_bn(tester):
    (
        tester(lambda: conv_bn(8, 16), IMAGE)
        .check_points(openvino=(1, 1), onnxruntime=(2, 1), torch_native=(1, 1), academic=(1, 1))
        .check_int8({"conv2d": 1})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_chain(tester):
    (
        tester(lambda: nn.Sequential(conv_bn(8, 16, act=nn.ReLU()), conv_bn(16, 16)), IMAGE, batches=(1,))
        .check_points(openvino=(2, 2), onnxruntime=(3, 2))
        .check_int8({"conv2d": 2})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_static_batch(tester):
    tested = tester(lambda: conv_bn(8, 16, act=nn.ReLU()), (3, 8, 8, 8), dynamic=False)
    assert not tested.work.captured.dynamic_batch
    tested.check_points(openvino=(1, 1), onnxruntime=(2, 1)).check_int8({"conv2d": 1}).run_and_compare()
