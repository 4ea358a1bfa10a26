"""GML's words: search_space with Categorical and Int, resize_process, connect_head."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.compress.algorithm.build_model import build_architecture
from razordeploy.compress.nas.algorithms.bignas import BigNAS
from razordeploy.compress.nas.supernets.gml_space import parse_entries, parse_entry
from razordeploy.compress.nas.supernets.resnet_slice import ResNetSlice
from razordeploy.errors import RecipeError
from razordeploy.subnet.dynamic_ops.linear import DynamicLinear
from razordeploy.subnet.fix import export_fix_subnet


def categorical(*data, **more):
    return {"type": "Categorical", "data": list(data), "default": data[0], **more}


SPACE = {
    "MB_stage_blocks": [categorical(1), categorical(1, 2, key="MB_stage_blocks.1"), categorical(1)],
    "MB_kernel_size": [categorical(3), categorical(3, 5), categorical(1)],
    "MB_expand_ratio": [categorical(1), categorical(2, 4), categorical(2)],
    "MB_out_channels": [categorical(8, 16), {"type": "Int", "lower": 16, "upper": 33, "step": 8}, categorical(24, 48)],
}
MODEL = {
    "type": "gml.ImageClassifierSearch",
    "backbone": {
        "type": "gml.MobileNetV3Slice",
        "conv_cfg": {"type": "Conv2dSlice"},
        "norm_cfg": {"type": "SyncBatchNormSlice", "requires_grad": True},
        "search_space": SPACE,
        "stride_list": [2],
        "with_se_list": [False],
    },
    "neck": {"type": "SqueezeMeanPoolingWithDropout"},
    "resize_process": {
        "type": "ResizeSlice",
        "resolution": {"type": "Int", "lower": 16, "upper": 33, "step": 8, "default": 24},
    },
    "connect_head": {"in_channels": "backbone.feat_dim"},
}


def _build(**changes):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(48, 5)

        def forward(self, feats):
            return self.fc((feats[-1] if isinstance(feats, tuple) else feats).flatten(1))

        def loss(self, feats, samples):
            return {"loss": nn.functional.cross_entropy(self(feats), samples)}

    return build_architecture({**MODEL, "head": Head(), **changes}, "architecture")


def test_a_supernet_in_gmls_words_trains_and_exports():
    torch.manual_seed(0)
    model = _build()
    assert isinstance(model.head.fc, DynamicLinear)
    algorithm = BigNAS(architecture=model, strategy="sandwish4", mutator={"type": "gml.StatelessMutator"})
    groups = algorithm.mutator.search_groups
    assert set(groups) == {
        *("MB_stage_blocks.1", "MB_kernel_size.1", "MB_expand_ratio.1", "MB_out_channels.0", "MB_out_channels.1"),
        *("MB_out_channels.2", "input_shape"),
    }
    assert groups["MB_out_channels.1"][0].choices == [16, 24, 32]
    assert groups["input_shape"][0].choices == [(16, 16), (24, 24), (32, 32)]
    x, y = torch.randn(2, 3, 32, 32), torch.tensor([0, 4])
    for choices in (algorithm.mutator.max_choices, algorithm.mutator.min_choices):
        algorithm.mutator.set_choices(choices)
        assert algorithm(x, y, mode="loss")["loss"].isfinite()
    static = export_fix_subnet(model.eval(), "mutable", slice_weight=True)[1]
    assert static.head.fc.in_features == 24
    torch.testing.assert_close(static(x), model(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"connect_head": {"in_channels": "backbone.feat_dims"}}, "'backbone.feat_dims' is no mutable"),
        ({"connect_head": {"join": "backbone.feat_dim"}}, "Head has no 'join'"),
        ({"resize_process": {"resolution": {"type": "Real"}}}, "resize_process.resolution: unknown type 'Real'"),
        ({"input_resizer_cfg": {"input_sizes": [8]}}, "say the same: give one"),
        ({"backbone": {**MODEL["backbone"], "search_space": {**SPACE, "MB_kernel": []}}}, "no dimension 'MB_kernel'"),
        (
            {"backbone": {**MODEL["backbone"], "search_space": {**SPACE, "MB_kernel_size": [3, 3]}}},
            "expected lists of one length",
        ),
    ],
)
def test_what_does_not_fit_is_said(change, message):
    with pytest.raises(RecipeError, match=message):
        _build(**change)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "Categorical"}, "s: Categorical needs data"),
        ({"type": "Int", "lower": 3}, "s: Int needs lower and upper|s: Int needs upper"),
        ({"type": "Categorical", "data": [], "key": "a"}, "s: Categorical has no values"),
        ({"type": "Categorical", "data": [1, 2], "default": 3}, r"the default 3 is none of \[1, 2\]"),
        ({"type": "Categorical", "values": [1]}, "Categorical has no 'values'"),
        ({"type": "Categorial", "data": [1]}, "unknown type 'Categorial'.*"),
        ("3", "expected dict"),
    ],
)
def test_bad_entries(entry, message):
    with pytest.raises(RecipeError, match=message):
        parse_entry(entry, "s")


def test_entries():
    assert parse_entry(5, "s") == ((5,), None)
    assert parse_entry({"type": "gml.Int", "lower": 192, "upper": 289, "step": 32, "key": "r"}, "s") == (
        (192, 224, 256, 288),
        "r",
    )
    with pytest.raises(RecipeError, match="expected a list with one entry a stage"):
        parse_entries({"type": "Int"}, "s")
    with pytest.raises(RecipeError, match="expected a depth of 18, 34, 50, 101, got 19"):
        ResNetSlice(19)
    with pytest.raises(RecipeError, match="an entry for each of 4 stages, got 1"):
        ResNetSlice(18, {"stage_blocks": [2]})
