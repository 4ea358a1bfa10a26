"""Operations whose depth, size or heads are elastic."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.attention import (
    DynamicMultiheadAttention,
    DynamicPatchEmbed,
    DynamicRelativePosition2D,
)
from razordeploy.subnet.dynamic_ops.conv import DynamicConv2d
from razordeploy.subnet.dynamic_ops.group_fisher import GroupFisherConv2d, GroupFisherLinear
from razordeploy.subnet.dynamic_ops.resizer import DynamicInputResizer
from razordeploy.subnet.dynamic_ops.sequential import DynamicSequential
from razordeploy.subnet.mutables.channel import SequentialMutableChannel
from razordeploy.subnet.mutables.value import OneShotMutableValue
from razordeploy.subnet.static_ops.attention import MultiheadAttention
from razordeploy.subnet.static_ops.input_resizer import InputResizer
from razordeploy.subnet.static_ops.patch_embed import PatchEmbed
from razordeploy.subnet.static_ops.relative_position import RelativePosition2D

from .conftest import bools, register


def test_depth_of_a_chain():
    chain = DynamicSequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    x = torch.randn(2, 3)
    whole = chain(x)
    depth = OneShotMutableValue([1, 3])
    chain.register_mutable_attr("depth", depth)
    assert (len(chain), len(list(chain))) == (3, 3)
    assert torch.equal(chain(x), whole)
    depth.current_choice = 1
    assert torch.equal(chain(x), chain[0](x))
    depth.fix_chosen(1)
    chain.eval()[0].train()
    static = chain.to_static_op()
    assert type(static) is nn.Sequential
    assert (len(static), static.training, static[0].training) == (1, False, True)
    assert torch.equal(static(x), chain[0](x))
    with pytest.raises(ModelError, match="depths up to 2"):
        DynamicSequential(nn.ReLU(), nn.ReLU()).register_mutable_attr("depth", OneShotMutableValue([1, 3]))


def test_dynamic_links_become_plain():
    conv = register(DynamicConv2d(3, 4, 1), in_channels="111", out_channels="1100")
    static = DynamicSequential(conv, nn.ReLU()).to_static_op()
    assert type(static[0]) is nn.Conv2d
    assert static(torch.randn(1, 3, 2, 2)).shape == (1, 2, 2, 2)


def test_input_size():
    op = DynamicInputResizer(interpolation_type="bilinear")
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(op(x), x)
    shape = OneShotMutableValue([[4, 6], [8, 8]])
    op.register_mutable_attr("shape", shape)
    shape.fix_chosen([4, 6])
    expected = functional.interpolate(x, (4, 6), mode="bilinear", align_corners=False)
    assert torch.equal(op(x), expected)
    # mmrazor's plain resizer forgets the size that was chosen.
    assert torch.equal(op.to_static_op()(x), expected)
    assert InputResizer(size=4)(x).shape == (1, 3, 4, 4)
    assert InputResizer(scale_factor=0.5)(x).shape == (1, 3, 4, 4)
    assert InputResizer("nearest", scale_factor=2)(x).shape == (1, 3, 16, 16)
    with pytest.raises(ModelError, match="positive integers"):
        DynamicInputResizer().register_mutable_attr("shape", OneShotMutableValue([0.5, 1.0]))


def test_relative_positions_by_hand():
    position = RelativePosition2D(5, max_relative_position=1)
    side = 3
    got = position(side * side + 1, side * side + 1)
    assert got.shape == (10, 10, 5)
    assert torch.equal(got[0, 4], position.embeddings_table_v[0] + position.embeddings_table_h[0])
    for q in range(9):
        for k in range(9):
            rows = max(-1, min(1, k // side - q // side)) + 2
            columns = max(-1, min(1, k % side - q % side)) + 2
            expected = position.embeddings_table_v[rows] + position.embeddings_table_h[columns]
            assert torch.equal(got[q + 1, k + 1], expected)
    with pytest.raises(ModelError, match="square of patches"):
        position(9, 9)


def test_relative_positions_are_sliced():
    op = register(DynamicRelativePosition2D(6, 2), head_dims="110100")
    full = RelativePosition2D.forward(op, 5, 5)
    torch.testing.assert_close(op(5, 5), full[..., bools("110100")])
    static = op.to_static_op()
    assert (type(static), static.head_dims) == (RelativePosition2D, 3)
    torch.testing.assert_close(static(5, 5), op(5, 5))


def _attention(**keywords):
    return DynamicMultiheadAttention(12, 3, head_dims=4, max_relative_position=2, **keywords)


def test_attention_is_torchs():
    op = _attention(relative_position=False).eval()
    x = torch.randn(2, 5, 12)
    q, k, v = (layer(x).view(2, 5, 3, 4).transpose(1, 2) for layer in (op.w_qs, op.w_ks, op.w_vs))
    expected = op.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 5, 12))
    torch.testing.assert_close(op(x), expected, atol=1e-5, rtol=1e-5)


def test_relative_positions_enter_keys_and_values():
    op = _attention().double().eval()
    x = torch.randn(1, 5, 12, dtype=torch.float64)
    q, k, v = (layer(x)[0].view(5, 3, 4) for layer in (op.w_qs, op.w_ks, op.w_vs))
    to_keys, to_values = op.rel_pos_embed_k(5, 5), op.rel_pos_embed_v(5, 5)
    out = torch.zeros(5, 3, 4, dtype=torch.float64)
    for head in range(3):
        for i in range(5):
            scores = torch.stack([(q[i, head] / 2) @ (k[j, head] + to_keys[i, j]) for j in range(5)])
            weights = scores.softmax(0)
            out[i, head] = sum(weights[j] * (v[j, head] + to_values[i, j]) for j in range(5))
    torch.testing.assert_close(op(x)[0], op.proj(out.reshape(5, 12)))


@pytest.mark.parametrize("relative_position", [False, True])
def test_heads_and_tokens_are_sliced(relative_position):
    op = _attention(relative_position=relative_position).eval()
    heads, embed = OneShotMutableValue([1, 2, 3]), SequentialMutableChannel(12)
    op.register_mutable_attr("num_heads", heads)
    op.register_mutable_attr("embed_dims", embed)
    whole = copy.deepcopy(op)
    joint = SequentialMutableChannel(3)
    op.register_mutable_attr("q_embed_dims", joint * 4)
    heads.current_choice, joint.current_choice, embed.current_choice = 2, 2, 8
    x = torch.randn(2, 5, 8)
    for mutable, choice in ((heads, 2), (joint, 2), (embed, 8)):
        mutable.fix_chosen(choice)
    static = op.to_static_op()
    assert type(static) is MultiheadAttention
    assert (static.num_heads, static.q_embed_dims, static.embed_dims, static.head_dims) == (2, 8, 8, 4)
    torch.testing.assert_close(static(x), op(x))
    # The oracle: the third head and the last four channels multiplied by zero.
    with torch.no_grad():
        for layer in (whole.w_qs, whole.w_ks, whole.w_vs):
            layer.weight[:, 8:] = 0
        whole.proj.weight[:, 8:] = 0
    padded = functional.pad(x, (0, 4))
    torch.testing.assert_close(MultiheadAttention.forward(whole, padded)[..., :8], op(x), atol=1e-5, rtol=1e-5)


def test_heads_that_do_not_fit_are_refused():
    op = _attention()
    with pytest.raises(ModelError, match="from 1 to 3 heads"):
        op.register_mutable_attr("num_heads", OneShotMutableValue([2, 4]))
    op.register_mutable_attr("num_heads", OneShotMutableValue([2, 3]))
    op.register_mutable_attr("q_embed_dims", SequentialMutableChannel(12))
    op.mutable_attrs["q_embed_dims"].current_choice = 7
    with pytest.raises(ModelError, match="7 channels cannot be shared by 3 heads"):
        op(torch.randn(1, 5, 12))


def test_patch_embedding():
    op = register(DynamicPatchEmbed(8, 3, 6, patch_size=4), embed_dims="101010")
    x = torch.randn(2, 3, 8, 8)
    full = PatchEmbed.forward(op, x)
    torch.testing.assert_close(op(x), full[..., bools("101010")])
    static = op.to_static_op()
    torch.testing.assert_close(static(x), op(x))
    assert (static.embed_dims, static.projection.out_channels) == (3, 3)


def test_fisher_is_the_gradient_of_a_mask():
    torch.set_default_dtype(torch.float64)
    try:
        first, second = GroupFisherConv2d(4, 4, 3, padding=1), GroupFisherConv2d(4, 2, 1)
        head = GroupFisherLinear(4, 3)
        x, mask = torch.randn(5, 4, 6, 6), torch.ones(5, 4, requires_grad=True)

        def loss(masked):
            a = first(masked).relu()
            # x is read by three: each records its own share.
            return (
                (a.mean((2, 3)) @ torch.ones(4)).sum()
                + second(masked).square().sum()
                + head(masked[..., 0, 0]).exp().sum()
            )

        for op in (first, second, head):
            op.start_record()
        loss(x.clone().requires_grad_()).backward()
        shares = [op.recorded_fisher[0] for op in (first, second, head)]
        assert [len(op.recorded_fisher) for op in (first, second, head)] == [1, 1, 1]
        for op in (first, second, head):
            op.end_record()
        loss(x * mask.view(5, 4, 1, 1)).backward()
        torch.testing.assert_close(sum(shares), mask.grad)
        assert len(first.recorded_fisher) == 1
        # Finite differences on one sample and channel, of the whole loss.
        step, bumped = 1e-5, torch.ones(5, 4)
        bumped[2, 1] += step
        up = loss(x * bumped.view(5, 4, 1, 1))
        bumped[2, 1] -= 2 * step
        difference = (up - loss(x * bumped.view(5, 4, 1, 1))) / (2 * step)
        torch.testing.assert_close(sum(shares)[2, 1], difference.detach(), atol=1e-6, rtol=1e-6)
    finally:
        torch.set_default_dtype(torch.float32)


def test_costs_of_a_channel_are_differences_of_costs():
    conv = register(GroupFisherConv2d(6, 8, 3, padding=1), in_channels="111100", out_channels="11111000")
    conv.start_record()
    conv(torch.randn(2, 4, 5, 7))
    conv(torch.randn(2, 4, 3, 3))
    places = 5 * 7 + 3 * 3

    def cost(inputs, outputs):
        return places * 9 * inputs * outputs

    assert conv.delta_flop_of_a_out_channel == cost(4, 5) - cost(4, 4)
    assert conv.delta_flop_of_a_in_channel == cost(4, 5) - cost(3, 5)
    assert conv.delta_memory_of_a_out_channel == places
    depthwise = register(GroupFisherConv2d(4, 4, 3, padding=1, groups=4), in_channels="1110", out_channels="1110")
    depthwise.start_record()
    depthwise(torch.randn(2, 3, 5, 5))
    assert depthwise.delta_flop_of_a_out_channel == depthwise.delta_flop_of_a_in_channel == 25 * 9
    linear = register(GroupFisherLinear(6, 8), in_features="111100", out_features="11111000")
    linear.start_record()
    linear(torch.randn(2, 3, 4))
    assert (linear.delta_flop_of_a_out_channel, linear.delta_flop_of_a_in_channel) == (3 * 4, 3 * 5)
    assert linear.delta_memory_of_a_out_channel == 3
    conv.reset_recorded()
    assert conv.delta_memory_of_a_out_channel == 0
