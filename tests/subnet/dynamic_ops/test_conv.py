from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.adaptive_padding import Conv2dAdaptivePadding, DynamicConv2dAdaptivePadding
from razordeploy.subnet.dynamic_ops.conv import DynamicConv1d, DynamicConv2d, DynamicConv3d
from razordeploy.subnet.dynamic_ops.conv_transpose import DynamicConvTranspose1d, DynamicConvTranspose2d
from razordeploy.subnet.mutables.value import OneShotMutableValue

from .conftest import bools, register

PREFIX, SCATTERED = ("1100", "111000"), ("0110", "101001")


@pytest.mark.parametrize(("in_mask", "out_mask"), [PREFIX, SCATTERED, ("1111", "101001"), ("0110", "111111")])
@pytest.mark.parametrize("bias", [True, False])
def test_convolution_is_its_slice(check, in_mask, out_mask, bias):
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=bias)
    op = register(DynamicConv2d.convert_from(conv), in_channels=in_mask, out_channels=out_mask)
    x = torch.randn(2, 4, 7, 7)
    sliced, static = check(op, nn.Conv2d, x, in_mask, out_mask)
    zeroed = conv(x * bools(in_mask).view(1, -1, 1, 1))[:, bools(out_mask)]
    torch.testing.assert_close(sliced, zeroed, atol=1e-6, rtol=1e-5)
    assert (static.in_channels, static.out_channels) == (in_mask.count("1"), out_mask.count("1"))


@pytest.mark.parametrize(
    ("op", "plain", "shape"),
    [(DynamicConv1d, nn.Conv1d, (2, 4, 9)), (DynamicConv3d, nn.Conv3d, (2, 4, 5, 5, 5))],
)
def test_other_ranks(check, op, plain, shape):
    conv = plain(4, 6, 3, dilation=2)
    dynamic = register(op.convert_from(conv), in_channels="0110", out_channels="101001")
    check(dynamic, plain, torch.randn(shape), "0110", "101001")


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [(1, 2), "same"])
def test_padding_modes(check, mode, padding):
    conv = nn.Conv2d(4, 6, (3, 5), padding=padding, padding_mode=mode)
    op = register(DynamicConv2d.convert_from(conv), in_channels="0110", out_channels="111000")
    x = torch.randn(2, 4, 8, 8)
    sliced, _ = check(op, nn.Conv2d, x, "0110", "111000")
    zeroed = conv(x * bools("0110").view(1, -1, 1, 1))[:, :3]
    torch.testing.assert_close(sliced, zeroed, atol=1e-6, rtol=1e-5)


def test_depthwise(check):
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    op = register(DynamicConv2d.convert_from(conv), in_channels="1010", out_channels="1010")
    x = torch.randn(2, 4, 6, 6)
    sliced, static = check(op, nn.Conv2d, x, "1010", "1010")
    torch.testing.assert_close(sliced, conv(x)[:, [0, 2]])
    assert (static.groups, static.in_channels, static.out_channels) == (2, 2, 2)


def test_depthwise_with_a_multiplier(check):
    conv = nn.Conv2d(4, 8, 3, padding=1, groups=4)
    op = register(DynamicConv2d.convert_from(conv), in_channels="0101", out_channels="00110011")
    x = torch.randn(2, 4, 6, 6)
    sliced, static = check(op, nn.Conv2d, x, "0101", "00110011")
    torch.testing.assert_close(sliced, conv(x)[:, [2, 3, 6, 7]])
    assert static.groups == 2


@pytest.mark.parametrize(
    ("in_mask", "out_mask", "groups"),
    [("110011", "1010", 2), ("011101", "1001", 2), ("000111", "0011", 1), ("111111", "1010", 2)],
    ids=["same in each", "other in each", "a group goes", "outputs only"],
)
def test_grouped(check, in_mask, out_mask, groups):
    conv = nn.Conv2d(6, 4, 3, padding=1, groups=2)
    op = register(DynamicConv2d.convert_from(conv), in_channels=in_mask, out_channels=out_mask)
    x = torch.randn(2, 6, 6, 6)
    sliced, static = check(op, nn.Conv2d, x, in_mask, out_mask)
    zeroed = conv(x * bools(in_mask).view(1, -1, 1, 1))[:, bools(out_mask)]
    torch.testing.assert_close(sliced, zeroed, atol=1e-6, rtol=1e-5)
    assert static.groups == groups


@pytest.mark.parametrize(("in_mask", "out_mask"), [("110001", "1010"), ("111111", "1110"), ("111000", "1010")])
def test_uneven_groups_are_refused(in_mask, out_mask):
    op = DynamicConv2d(6, 4, 3, groups=2)
    register(op, in_channels=in_mask, out_channels=out_mask)
    with pytest.raises(ModelError, match="equally many channels in every group"):
        op(torch.randn(1, in_mask.count("1"), 6, 6))


def test_mutable_number_of_groups():
    conv = nn.Conv2d(4, 4, 3, groups=4)
    op = DynamicConv2d.convert_from(conv)
    groups = OneShotMutableValue([2, 4])
    op.register_mutable_attr("groups", groups)
    groups.current_choice = 2
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(op(x[:, :2]), conv(x)[:, :2])


def test_conversion_keeps_weights_mode_dtype_and_hooks():
    conv = nn.Conv2d(4, 6, 3).double().eval()
    conv.weight.requires_grad_(False)
    calls = []
    conv.register_forward_hook(lambda *_: calls.append(1))
    conv.note = "kept"
    op = DynamicConv2d.convert_from(conv)
    assert op.weight is conv.weight
    assert list(op.state_dict()) == list(conv.state_dict())
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    assert torch.equal(op(x), conv(x))
    static = register(op, in_channels="1111", out_channels="100001").to_static_op()
    assert (static.training, static.weight.dtype, static.weight.requires_grad, static.note) == (
        False,
        torch.float64,
        False,
        "kept",
    )
    assert static(x).shape[1] == 2
    assert len(calls) == 3
    assert not hasattr(static, "mutable_attrs")
    # The plain operation owns its weights.
    static.weight.zero_()
    assert conv.weight.abs().sum() > 0


def test_a_state_dict_of_the_plain_operation_loads():
    plain, op = nn.Conv2d(4, 6, 3), register(DynamicConv2d(4, 6, 3), in_channels="1100", out_channels="111000")
    op.load_state_dict(plain.state_dict(), strict=True)
    assert torch.equal(op.weight, plain.weight)


def test_what_is_no_plain_convolution_is_refused():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            return functional.conv2d(x, self.weight - self.weight.mean(), self.bias)

    with pytest.raises(ModelError, match="Standardised is no plain Conv2d"):
        DynamicConv2d.convert_from(Standardised(2, 2, 1))
    with pytest.raises(ModelError, match="stands in for Conv2d, got Linear"):
        DynamicConv2d.convert_from(nn.Linear(2, 2))


def test_mutables_that_do_not_fit_are_refused():
    op = DynamicConv2d(4, 6, 3)
    with pytest.raises(ModelError, match="mask of 4 channels for 'in_channels', got 5"):
        register(op, in_channels="11111")
    with pytest.raises(ModelError, match="did you mean 'in_channels'"):
        op.register_mutable_attr("in_chanels", OneShotMutableValue([1]))
    with pytest.raises(ModelError, match="no mask"):
        op.register_mutable_attr("in_channels", OneShotMutableValue([4]))
    register(op, in_channels="1111")
    with pytest.raises(ModelError, match="has a mutable already"):
        register(op, in_channels="1111")


def test_an_unfixed_mutable_keeps_an_operation_dynamic():
    op = DynamicConv2d(4, 4, 3, groups=4)
    value = OneShotMutableValue([2, 4])
    op.register_mutable_attr("groups", value)
    with pytest.raises(ModelError, match="of 'groups' is not fixed"):
        op.to_static_op()
    value.fix_chosen(2)
    assert op.to_static_op().groups == 2


@pytest.mark.parametrize("size", [7, 8, 9])
def test_adaptive_padding(check, size):
    conv = Conv2dAdaptivePadding(4, 6, 3, stride=2)
    x = torch.randn(2, 4, size, size)
    assert conv(x).shape[2] == (size + 1) // 2
    op = register(DynamicConv2dAdaptivePadding.convert_from(conv), in_channels="0110", out_channels="101001")
    sliced, _ = check(op, Conv2dAdaptivePadding, x, "0110", "101001")
    zeroed = conv(x * bools("0110").view(1, -1, 1, 1))[:, bools("101001")]
    torch.testing.assert_close(sliced, zeroed, atol=1e-6, rtol=1e-5)


def test_adaptive_padding_is_mmcvs():
    bricks = pytest.importorskip("mmcv.cnn.bricks", reason="needs mmcv.cnn.bricks")
    theirs = bricks.Conv2dAdaptivePadding(4, 6, 3, stride=2)
    op = DynamicConv2dAdaptivePadding.convert_from(theirs)
    x = torch.randn(1, 4, 9, 7)
    assert torch.equal(op(x), theirs(x))
    assert type(op.to_static_op()) is type(theirs)


@pytest.mark.parametrize(
    ("op", "plain", "shape"),
    [
        (DynamicConvTranspose1d, nn.ConvTranspose1d, (2, 4, 5)),
        (DynamicConvTranspose2d, nn.ConvTranspose2d, (2, 4, 5, 5)),
    ],
)
def test_transposed(check, op, plain, shape):
    conv = plain(4, 6, 3, stride=2, padding=1, output_padding=1)
    dynamic = register(op.convert_from(conv), in_channels="0110", out_channels="101001")
    x = torch.randn(shape)
    sliced, static = check(dynamic, plain, x, "0110", "101001")
    mask = bools("0110").view(1, -1, *[1] * (len(shape) - 2))
    torch.testing.assert_close(sliced, conv(x * mask)[:, bools("101001")], atol=1e-6, rtol=1e-5)
    assert static.weight.shape[:2] == (2, 3)


def test_transposed_depthwise_and_output_size(check):
    conv = nn.ConvTranspose2d(4, 4, 3, stride=2, groups=4)
    op = register(DynamicConvTranspose2d.convert_from(conv), in_channels="1010", out_channels="1010")
    x = torch.randn(1, 4, 4, 4)
    check(op, nn.ConvTranspose2d, x, "1010", "1010")
    assert torch.equal(op(x[:, [0, 2]], output_size=[10, 10]), conv(x, output_size=[10, 10])[:, [0, 2]])
    uneven = register(copy.deepcopy(DynamicConvTranspose2d(4, 4, 3, groups=2)), in_channels="1010", out_channels="1010")
    with pytest.raises(ModelError, match="depthwise"):
        uneven(x[:, [0, 2]])
