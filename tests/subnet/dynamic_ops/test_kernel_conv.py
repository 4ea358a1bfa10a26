from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.fuse_conv import FuseConv2d
from razordeploy.subnet.dynamic_ops.kernel_conv import BigNasConv2d, OFAConv2d
from razordeploy.subnet.mutables.value import OneShotMutableValue

from .conftest import register


def _elastic(kind, *args, kernels=(3, 5, 7), **keywords):
    op = kind(*args, **keywords)
    value = OneShotMutableValue(list(kernels))
    op.register_mutable_attr("kernel_size", value)
    return op, value


@pytest.mark.parametrize("dilation", [1, 2])
def test_smaller_kernels_are_the_centre(check, dilation):
    op, kernel = _elastic(BigNasConv2d, 4, 6, 7, padding=3 * dilation, dilation=dilation, stride=2)
    register(op, in_channels="0110", out_channels="101001")
    x = torch.randn(2, 4, 16, 16)
    sizes = set()
    for side in (3, 5, 7):
        kernel.current_choice = side
        centre = functional.pad(torch.ones(side, side), [(7 - side) // 2] * 4)
        weight = (op.weight * centre)[[0, 2, 5]][:, [1, 2]]
        expected = functional.conv2d(x[:, 1:3], weight, op.bias[[0, 2, 5]], 2, 3 * dilation, dilation)
        torch.testing.assert_close(op(x[:, 1:3]), expected, atol=1e-6, rtol=1e-5)
        sizes.add(expected.shape)
    assert len(sizes) == 1
    kernel.current_choice = 3
    kernel.fix_chosen(3)
    _, static = check(op, nn.Conv2d, x, "0110", "101001")
    assert (static.kernel_size, static.padding) == ((3, 3), (dilation, dilation))


def test_ofa_maps_each_kernel_to_the_next():
    op, kernel = _elastic(OFAConv2d, 2, 3, 7, padding=3)
    with torch.no_grad():
        op.trans_matrix_7to5.copy_(torch.randn(25, 25))
        op.trans_matrix_5to3.copy_(torch.randn(9, 9))
    x = torch.randn(1, 2, 9, 9)
    five = torch.einsum("oip,qp->oiq", op.weight[..., 1:6, 1:6].reshape(3, 2, 25), op.trans_matrix_7to5)
    three = torch.einsum("oip,qp->oiq", five.view(3, 2, 5, 5)[..., 1:4, 1:4].reshape(3, 2, 9), op.trans_matrix_5to3)
    for side, weight in ((7, op.weight), (5, five.view(3, 2, 5, 5)), (3, three.view(3, 2, 3, 3))):
        kernel.current_choice = side
        torch.testing.assert_close(op(x), functional.conv2d(x, weight, op.bias, padding=side // 2))
    kernel.fix_chosen(3)
    static = op.to_static_op()
    assert list(static.state_dict()) == ["weight", "bias"]
    torch.testing.assert_close(static(x), op(x))


def test_ofa_begins_with_the_centre():
    op, kernel = _elastic(OFAConv2d, 2, 3, 5, padding=2, kernels=(3, 5))
    other, other_kernel = _elastic(BigNasConv2d, 2, 3, 5, padding=2, kernels=(3, 5))
    other.load_state_dict({k: v for k, v in op.state_dict().items() if not k.startswith("trans")})
    kernel.current_choice = other_kernel.current_choice = 3
    x = torch.randn(1, 2, 6, 6)
    torch.testing.assert_close(op(x), other(x))


def test_depthwise_kernels(check):
    op, kernel = _elastic(BigNasConv2d, 4, 4, 5, padding=2, groups=4, kernels=(3, 5))
    register(op, in_channels="1010", out_channels="1010")
    kernel.fix_chosen(3)
    _, static = check(op, nn.Conv2d, torch.randn(1, 4, 6, 6), "1010", "1010")
    assert (static.groups, static.kernel_size) == (2, (3, 3))


def test_bad_kernels_are_refused():
    with pytest.raises(ModelError, match="largest kernel of"):
        _elastic(BigNasConv2d, 2, 2, 7, kernels=(3, 5))
    with pytest.raises(ModelError, match="middle of one"):
        _elastic(BigNasConv2d, 2, 2, 7, kernels=(4, 7))
    op, kernel = _elastic(BigNasConv2d, 2, 2, 7, padding=1)
    kernel.current_choice = 3
    with pytest.raises(ModelError, match="'same' padding"):
        op(torch.randn(1, 2, 9, 9))


def _reference_fusion(weight, tau, kept):
    """DCFF's equations 3 to 5 with loops, in float64."""
    filters = weight.double().flatten(1)
    count = len(filters)
    p = torch.stack([torch.softmax(-(filters - f).norm(dim=1) / tau, dim=0) for f in filters])
    importance = [
        sum(float((p[i] * (p[i].log() - p[g].log())).nan_to_num(0).sum()) for g in range(count)) / count
        for i in range(count)
    ]
    rows = sorted(sorted(range(count), key=lambda i: -importance[i])[:kept])
    return p[rows], rows


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_fusion_is_the_papers(tau):
    op = register(FuseConv2d(3, 6, 3), in_channels="111", out_channels="111100")
    fusion, _ = _reference_fusion(op.weight.detach(), tau, 4)
    torch.testing.assert_close(op.get_pooled_channel(tau).double(), fusion, atol=1e-6, rtol=1e-5)


def test_fused_filters_are_the_mixture():
    op = register(FuseConv2d(4, 6, 3, padding=1), in_channels="1110", out_channels="111100")
    fusion = op.get_pooled_channel(0.7)
    op.set_forward_args(fusion)
    x = torch.randn(2, 4, 5, 5)
    sliced, static = op(x[:, :3]), op.to_static_op()
    weight = torch.einsum("mc,cihw->mihw", fusion, op.weight)[:, :3]
    torch.testing.assert_close(sliced, functional.conv2d(x[:, :3], weight, fusion @ op.bias, padding=1))
    torch.testing.assert_close(static(x[:, :3]), sliced)
    assert list(static.state_dict()) == list(op.state_dict()) == ["weight", "bias"]
    # All filters are trained, not only those that stay.
    sliced.square().sum().backward()
    assert (op.weight.grad[:, :3].abs().sum((1, 2, 3)) > 0).all()


def test_cold_fusion_selects_filters():
    op = register(FuseConv2d(4, 6, 3), in_channels="1111", out_channels="111100")
    op.set_forward_args(op.get_pooled_channel(1e-4))
    _, rows = _reference_fusion(op.weight.detach(), 0.05, 4)
    chosen = op.fusion.argmax(1).tolist()
    assert chosen == sorted(chosen)
    x = torch.randn(2, 4, 5, 5)
    compact = functional.conv2d(x, op.weight[chosen], op.bias[chosen])
    torch.testing.assert_close(op(x), compact, atol=1e-5, rtol=0)


def test_fusion_of_another_width_is_refused():
    op = register(FuseConv2d(4, 6, 3), in_channels="1111", out_channels="111100")
    with pytest.raises(ModelError, match=r"\(kept, 6\)"):
        op.set_forward_args(torch.zeros(4, 5))
    op.set_forward_args(op.get_pooled_channel(1.0)[:3])
    with pytest.raises(ModelError, match="calc_information"):
        op(torch.randn(1, 4, 5, 5))
