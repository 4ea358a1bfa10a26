"""What TensorRT's plan quantizes, and where its pairs stand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razordeploy.backends.onnx_passes.export import export_marked
from razordeploy.backends.onnx_passes.qdq import quantized_model
from razordeploy.backends.tensorrt.quantizer import plan
from razordeploy.backends.tensorrt.rewrite import rewrite
from razordeploy.backends.tensorrt.rules import check
from razordeploy.backends.tensorrt.spec import SPEC
from razordeploy.capture.export import capture
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.errors import RecipeError
from razordeploy.quantization.qconfig import settings_for
from razordeploy.quantization.statistics import collect, resolve


def planned(model, *inputs, dynamic=True, **quantize):
    captured = capture(model.eval(), inputs, dynamic_batch=dynamic)
    return captured, plan(captured, settings_for(SPEC, QuantizeConfig.parse(quantize, "test")))


def reasons(found):
    return {op.node: op.reason for op in found.ops}


@pytest.mark.parametrize(
    ("layer", "channels", "int8"),
    [
        (lambda: nn.Conv2d(3, 32, 3), 3, True),  # the first layer, a multiple of 8 behind it
        (lambda: nn.Conv2d(3, 12, 3), 3, False),
        (lambda: nn.Conv2d(8, 24, (1, 3)), 8, False),
        (lambda: nn.Conv2d(8, 8, 3, groups=8), 8, True),
        (lambda: nn.Conv2d(8, 8, 1, groups=8), 8, False),
        (lambda: nn.Conv2d(16, 16, 1), 16, True),
    ],
)
def test_convolutions_too_small(layer, channels, int8):
    _, found = planned(layer(), torch.randn(2, channels, 8, 8))
    assert [op.int8 for op in found.ops] == [int8]
    assert int8 or "too small for the integer units" in (found.ops[0].reason or "")


def test_small_layer_behind_another():
    _, found = planned(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), torch.randn(2, 3, 8, 8))
    assert [op.int8 for op in found.ops] == [True, False]


@pytest.mark.parametrize(
    ("inputs", "outputs", "batch", "dynamic", "int8"),
    [(32, 16, 2, True, True), (32, 10, 2, True, False), (8, 32, 2, True, False), (32, 1, 2, True, False),
     (32, 16, 1, False, False)],
)  # fmt: skip
def test_products_too_small(inputs, outputs, batch, dynamic, int8):
    _, found = planned(nn.Linear(inputs, outputs), torch.randn(batch, inputs), dynamic=dynamic)
    assert [op.int8 for op in found.ops] == [int8]


class Stem(nn.Module):
    """A pooling between a convolution and a residual block, as in ResNet."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b, self.head = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(4))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        return self.head(F.relu(self.b(F.relu(self.a(x))) + x))


def test_pairs_stand_right_before_their_readers():
    _, found = planned(Stem(), torch.randn(2, 16, 8, 8))
    pairs = {p.node: p.users for p in found.points if p.kind == "activation"}
    assert pairs == {
        "x": ("conv2d",),
        "max_pool2d": ("add", "conv2d_1"),  # the shortcut, and not the convolution's own branch
        "relu_1": ("conv2d_2",),
        "relu_2": ("conv2d_3",),
    }


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Conv2d(16, 16, 1) for _ in range(2))
        self.c, self.d = nn.Conv2d(32, 16, 1), nn.Conv2d(16, 16, 1)

    def forward(self, x):
        left, right = F.relu(self.a(x)), F.relu(self.b(x))
        return self.c(torch.cat([left, right], 1)) + self.d(F.max_pool2d(left, 1))


def test_what_would_be_moved_to_one_place_has_one_grid():
    _, found = planned(Branches(), torch.randn(2, 16, 8, 8))
    groups = {p.node: p.group for p in found.points if p.kind == "activation"}
    assert groups["cat"] == groups["max_pool2d"], "both are made of 'left'"
    assert groups["x"] != groups["cat"]


def test_grouped_transposed_convolution():
    _, found = planned(nn.ConvTranspose2d(32, 32, 2, groups=2), torch.randn(2, 32, 8, 8))
    assert "per group" in str(found.ops[0].reason)


@pytest.mark.parametrize("change", [{"qdtype": "quint8"}, {"is_symmetry": False}])
def test_there_is_one_grid(change):
    qconfig = {
        "w_qscheme": {"qdtype": "qint8", "bit": 8, "is_symmetry": True, "per_channel": True},
        "a_qscheme": {"qdtype": "qint8", "bit": 8, "is_symmetry": True, "per_channel": False, **change},
    }
    with pytest.raises(RecipeError, match="TensorRT has one integer grid"):
        planned(nn.Conv2d(16, 16, 1), torch.randn(2, 16, 8, 8), global_qconfig=qconfig)


def test_one_dimensional_convolution_is_written_with_two():
    """Kernels exist for two and three axes; the pair stays next to the convolution."""
    model = nn.Sequential(nn.Conv1d(16, 32, 3, padding=1, stride=2), nn.ReLU(), nn.Conv1d(32, 16, 1))
    captured, found = planned(model, torch.randn(2, 16, 12))
    params = resolve(captured, found, collect(captured, [found], [(torch.randn(4, 16, 12),)]))
    written = quantized_model(export_marked(captured, [found], opset=20), found, params, rewrite)
    convolutions = [n for n in written.graph if n.op_type == "Conv"]
    assert [len(n.inputs[1].shape) for n in convolutions] == [4, 4]
    assert [n.attributes.get_ints("pads") for n in convolutions] == [(0, 1, 0, 1), (0, 0, 0, 0)]
    assert check(written) == []
