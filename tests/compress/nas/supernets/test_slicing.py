"""A subnet run in the supernet, with zeros in full widths, and sliced to a plain model: the same numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from razordeploy.compress.nas.supernets.cifar import resnet_cifar
from razordeploy.compress.nas.supernets.digits import (
    autoformer_digits,
    bignas_digits,
    darts_digits,
    dsnas_digits,
    spos_digits,
)
from razordeploy.compress.nas.supernets.mobilenet_v3_slice import MobileNetV3Slice
from razordeploy.compress.nas.supernets.pooled import SupernetClassifier
from razordeploy.compress.nas.supernets.resnet_slice import ResNetSlice
from razordeploy.subnet.dynamic_ops.base import DynamicMixin
from razordeploy.subnet.fix import export_fix_subnet, load_fix_subnet
from razordeploy.subnet.mutators.forward import set_masked
from razordeploy.subnet.mutators.nas import NasMutator
from tests.subnet.nets import randomise


def _categorical(*values, key=None):
    return {"type": "Categorical", "data": list(values), **({"key": key} if key else {})}


def mobilenet_slice():
    space = {
        "MB_stage_blocks": [_categorical(1), _categorical(1, 2, key="blocks.1"), _categorical(1, 2), _categorical(1)],
        "MB_kernel_size": [_categorical(3), _categorical(3, 5), _categorical(3, 5), _categorical(1)],
        "MB_expand_ratio": [_categorical(1), _categorical(1, 2), _categorical(2, 3), _categorical(2, 3)],
        "MB_out_channels": [
            _categorical(8, 16),
            _categorical(8, 16),
            {"type": "Int", "lower": 16, "upper": 33, "step": 8, "default": 24},
            _categorical(40, 48),
        ],
    }
    options = {"stride_list": [1, 2], "with_se_list": [False, True], "in_channels": 1, "stem_stride": 1}
    backbone = MobileNetV3Slice(space, conv_cfg={"type": "gml.Conv2dSlice"}, **options)
    return SupernetClassifier(backbone, 48, 10, backbone.feat_dim)


def resnet_slice(depth=18):
    space = {
        "base_channels": _categorical(4, 8),
        "stage_blocks": [_categorical(1, 2), _categorical(1, 2)],
        "stage_out_channel": [_categorical(4, 8), {"type": "Int", "lower": 8, "upper": 17, "step": 4}],
    }
    backbone = ResNetSlice(depth, space, num_stages=2, strides=(1, 2), out_indices=(1,), in_channels=1, small_stem=True)
    return SupernetClassifier(backbone, backbone.feat_dim.num_channels, 10, backbone.feat_dim)


SPACES = {
    "spos": spos_digits,
    "dsnas": dsnas_digits,
    "darts": darts_digits,
    "bignas": bignas_digits,
    "bignas_resolutions": lambda: bignas_digits(resolutions=(6, 8, 11)),
    "ofa": lambda: bignas_digits(conv_type="OFAConv2d", fine_grained=True),
    "autoformer": autoformer_digits,
    "mobilenet_slice": mobilenet_slice,
    "resnet_slice": resnet_slice,
    "resnet_slice_bottleneck": lambda: resnet_slice(50),
    "resnet_cifar": resnet_cifar,
}
# Layer norms average over the kept channels alone, so a transformer has no masked form.
MASKED = {"bignas", "bignas_resolutions", "ofa", "mobilenet_slice", "resnet_slice", "resnet_slice_bottleneck"} | {
    "resnet_cifar"
}


SIZES = {"resnet_cifar": (3, 16, 16)}
"""Images other than grey ones of 8 by 8."""


def prepared(name):
    torch.manual_seed(0)
    model = randomise(SPACES[name]())
    for key, parameter in model.named_parameters():
        if "trans_matrix" in key:
            nn.init.normal_(parameter, 0.0, 0.3)
    mutator = NasMutator()
    mutator.prepare_from_supernet(model)
    return model, mutator


def one_dimension_at_a_time(mutator):
    """The largest subnet, the smallest, and for every group every choice with the others at their largest."""
    yield mutator.max_choices
    yield mutator.min_choices
    for name, members in mutator.search_groups.items():
        if not hasattr(members[0], "num_chosen"):
            for choice in members[0].choices:
                yield {**mutator.max_choices, name: choice}


def subnets(name, mutator):
    if name in ("spos", "dsnas", "darts"):
        return [mutator.sample_choices() for _ in range(4)]
    # The smallest comes last: a drawn one may be the largest, which is no smaller than the supernet.
    return [*one_dimension_at_a_time(mutator), *(mutator.sample_choices() for _ in range(3)), mutator.min_choices]


@pytest.mark.parametrize("name", SPACES)
def test_sliced_masked_and_exported_are_equal(name):
    model, mutator = prepared(name)
    x = torch.randn(2, *SIZES.get(name, (1, 8, 8)))
    for choices in subnets(name, mutator):
        mutator.set_choices(choices)
        subnet, static = export_fix_subnet(model, "mutable", slice_weight=True)
        assert not any(isinstance(part, DynamicMixin) for part in static.modules())
        with torch.no_grad():
            expected = static(x)
            if name not in ("dsnas", "darts"):
                torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)
            if name in MASKED:
                set_masked(model, True)
                torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)
                set_masked(model, False)
    # Another supernet, as another process would build it.
    other = SPACES[name]().eval()
    other.load_state_dict(model.state_dict(), strict=True)
    load_fix_subnet(other, subnet)
    assert torch.equal(other(x), expected)
    assert other.state_dict().keys() == static.state_dict().keys()
    narrow = sum(p.numel() for p in static.parameters())
    assert narrow < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["darts", "dsnas"])
def test_a_fixed_differentiable_choice_is_that_operation(name):
    model, mutator = prepared(name)
    mutator.set_choices(mutator.sample_choices())
    static = export_fix_subnet(model, "mutable", slice_weight=True)[1]
    plain = copy.deepcopy(model)
    for part, fixed in zip(plain.modules(), list(model.modules()), strict=True):
        if hasattr(fixed, "_candidates"):
            chosen = fixed.current_choice
            names = [chosen] if isinstance(chosen, str) else chosen
            part.forward = lambda x, ops=part._candidates, names=names: sum(ops[n](x) for n in names)
        elif hasattr(fixed, "_edges"):
            keys = list(fixed.current_choice)
            every = list(fixed._edges)
            part.forward = lambda x, e=part._edges, keys=keys, every=every: sum(e[k](x[every.index(k)]) for k in keys)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(static(x), plain(x), atol=1e-6, rtol=0)
