"""The largest subnet is the plain network, and what a subnet is said to cost is what its static model costs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from razordeploy.compress.nas.search.cost import SupernetCosts
from razordeploy.compress.nas.supernets.autoformer import AutoformerBackbone
from razordeploy.compress.nas.supernets.digits import autoformer_digits, bignas_digits, resnet_digits, spos_digits
from razordeploy.subnet.dynamic_ops.base import DynamicMixin
from razordeploy.subnet.dynamic_ops.kernel_conv import OFAConv2d
from razordeploy.subnet.fix import export_fix_subnet
from razordeploy.subnet.mutators.nas import NasMutator
from tests.subnet.nets import randomise

COSTED = {
    "spos": spos_digits,
    "bignas": lambda: bignas_digits(resolutions=(6, 8)),
    "ofa": lambda: bignas_digits(conv_type="OFAConv2d", fine_grained=True),
    "resnet": resnet_digits,
    "autoformer": autoformer_digits,
}


def _prepared(model):
    mutator = NasMutator()
    mutator.prepare_from_supernet(model)
    return mutator


def _plain_mobile_block(block, x):
    """An inverted residual block with torch's functions alone."""

    def normed(part, x, groups=1):
        conv, norm = part.conv, part.bn
        y = functional.conv2d(x, conv.weight, conv.bias, conv.stride, conv.kernel_size[0] // 2, groups=groups)
        y = functional.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return y if part.activate is None else functional.silu(y)

    y = normed(block.expand_conv, x) if block.with_expand_conv else x
    y = normed(block.depthwise_conv, y, groups=y.shape[1])
    if block.with_se:
        s = y.mean((2, 3), keepdim=True)
        s = functional.relu(functional.conv2d(s, block.se.conv1.conv.weight, block.se.conv1.conv.bias))
        y = y * functional.hardsigmoid(functional.conv2d(s, block.se.conv2.conv.weight, block.se.conv2.conv.bias))
    y = normed(block.linear_conv, y)
    shortcut = x if block.shortcut.reduction == 1 else functional.avg_pool2d(x, 2)
    if x.shape[1] != y.shape[1]:
        shortcut = functional.conv2d(shortcut, block.shortcut.conv.weight)
    return shortcut + y


def test_the_largest_once_for_all_network_is_the_plain_one():
    torch.manual_seed(0)
    model = randomise(bignas_digits(conv_type="OFAConv2d", fine_grained=True)).double()
    for part in model.modules():
        if isinstance(part, OFAConv2d):
            for key, parameter in part.named_parameters():
                if "trans_matrix" in key:
                    nn.init.normal_(parameter)
    _prepared(model).set_max_choices()
    backbone, x = model.backbone, torch.randn(2, 1, 8, 8, dtype=torch.float64)
    stem = backbone.first_conv
    y = functional.conv2d(x, stem.conv.weight, stem.conv.bias, padding=1)
    norm = stem.bn
    y = functional.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    y = functional.silu(y)
    for name in ("layer1", "layer2", "layer3"):
        for block in getattr(backbone, name):
            y = _plain_mobile_block(block, y)
    expand, mix = backbone.last_conv.final_expand_layer, backbone.last_conv.feature_mix_layer
    y = functional.conv2d(y, expand.conv.weight)
    norm = expand.bn
    y = functional.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    y = functional.silu(y).mean((2, 3), keepdim=True)
    y = functional.silu(functional.conv2d(y, mix.conv.weight)).flatten(1)
    expected = functional.linear(y, model.head.fc.weight, model.head.fc.bias)
    torch.testing.assert_close(model(x), expected, atol=1e-9, rtol=0)


def _vision_transformer(backbone, x):
    """A plain vision transformer with the supernet's weights, its attention by torch's own module."""
    width, heads, side = backbone.cls_token.shape[-1], backbone.blocks[0].attn.num_heads, 4
    patches = functional.conv2d(
        x, backbone.patch_embed.projection.weight, backbone.patch_embed.projection.bias, stride=2
    )
    y = (
        torch.cat([backbone.cls_token.expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        + backbone.pos_embed
    )
    assert y.shape[1:] == (side * side + 1, width)
    for block in backbone.blocks:
        attn, h = block.attn, functional.layer_norm(y, (width,), block.ln1.weight, block.ln1.bias)
        # One head after another: its rows of the projections are contiguous.
        outputs, d = [], attn.head_dims
        bias_k, bias_v = attn.rel_pos_embed_k(y.shape[1], y.shape[1]), attn.rel_pos_embed_v(y.shape[1], y.shape[1])
        for head in range(heads):
            rows = slice(head * d, head * d + d)
            q, k, v = (
                functional.linear(h, part.weight[rows], part.bias[rows]) for part in (attn.w_qs, attn.w_ks, attn.w_vs)
            )
            scores = (q @ k.transpose(1, 2) + torch.einsum("nqd,qkd->nqk", q, bias_k)) * d**-0.5
            weights = scores.softmax(-1)
            outputs.append(weights @ v + torch.einsum("nqk,qkd->nqd", weights, bias_v))
        y = y + functional.linear(torch.cat(outputs, -1), attn.proj.weight, attn.proj.bias)
        h = functional.layer_norm(y, (width,), block.ln2.weight, block.ln2.bias)
        y = y + block.fc2(functional.gelu(block.fc1(h)))
    return functional.layer_norm(y, (width,), backbone.ln.weight, backbone.ln.bias)[:, 1:].mean(1)


def test_the_largest_transformer_is_the_plain_one_and_heads_stay_whole():
    torch.manual_seed(0)
    model = randomise(autoformer_digits()).double()
    mutator = _prepared(model)
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    mutator.set_max_choices()
    torch.testing.assert_close(model.backbone(x)[0], _vision_transformer(model.backbone, x), atol=1e-9, rtol=0)
    # A narrower subnet is the plain transformer of its own sliced weights: its heads are the first ones, uncut.
    mutator.set_min_choices()
    static = export_fix_subnet(model, "mutable", slice_weight=True)[1]
    full = model.backbone.blocks[0].attn.w_qs.weight
    assert torch.equal(static.backbone.blocks[0].attn.w_qs.weight, full[: 2 * 8, :24])
    torch.testing.assert_close(model.backbone(x)[0], _vision_transformer(static.backbone, x), atol=1e-9, rtol=0)
    assert not isinstance(static.backbone, AutoformerBackbone | DynamicMixin)


@pytest.mark.parametrize("name", COSTED)
def test_costs_are_those_of_the_static_model(name):
    torch.manual_seed(0)
    model = COSTED[name]().eval()
    mutator = _prepared(model)
    x = torch.randn(1, 1, 8, 8)
    costs = SupernetCosts(model, mutator, (x,))
    for choices in (mutator.max_choices, mutator.min_choices, *(mutator.sample_choices() for _ in range(4))):
        macs, params = costs.count(choices)
        mutator.set_choices(choices)
        static = export_fix_subnet(model, "mutable", slice_weight=True)[1]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            static(x)
        assert params == sum(parameter.numel() for parameter in static.parameters())
        assert 2 * macs == counter.get_total_flops()
