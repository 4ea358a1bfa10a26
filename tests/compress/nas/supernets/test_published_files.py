"""Subnet files in the formats that mmrazor published load onto the built-in architectures."""

from __future__ import annotations

import pytest
import torch

from razordeploy.compress.nas.supernets.autoformer import AutoformerBackbone
from razordeploy.compress.nas.supernets.classifier import SearchableImageClassifier
from razordeploy.compress.nas.supernets.darts import DartsBackbone
from razordeploy.compress.nas.supernets.mobilenet_v2 import SearchableMobileNetV2
from razordeploy.compress.nas.supernets.mobilenet_v3 import AttentiveMobileNetV3
from razordeploy.compress.nas.supernets.shufflenet_v2 import SearchableShuffleNetV2
from razordeploy.errors import ModelError
from razordeploy.subnet.fix import load_fix_subnet

SHUFFLE = {
    "shuffle_3x3": {"type": "ShuffleBlock", "kernel_size": 3},
    "shuffle_xception": {"type": "mmrazor.ShuffleXception"},
}


def _model(backbone, channels, resizes=False, **options):
    return SearchableImageClassifier(
        backbone=backbone,
        neck=None if isinstance(backbone, AutoformerBackbone) else {"type": "SqueezeMeanPoolingWithDropout"},
        head={"type": "DynamicLinearClsHead", "num_classes": 3, "in_channels": channels},
        input_resizer_cfg={"input_sizes": [[16, 16], [24, 24]]} if resizes else None,
        **options,
    ).eval()


def _images():
    return torch.randn(2, 3, 32, 32)


SPOS = """
backbone.layers.0.0:
  chosen: shuffle_3x3
backbone.layers.0.1:
  chosen: shuffle_xception
backbone.layers.1.0:
  chosen: shuffle_3x3
"""


def _spos():
    choice = {"type": "mmrazor.OneShotMutableOP", "candidates": SHUFFLE}
    return _model(SearchableShuffleNetV2([[16, 2, choice], [32, 1, choice]], out_indices=(2,), last_channels=24), 24)


def test_spos(tmp_path):
    (tmp_path / "SPOS_SUBNET.yaml").write_text(SPOS)
    model = load_fix_subnet(_spos(), tmp_path / "SPOS_SUBNET.yaml")
    assert [list(block._candidates) for block in model.backbone.layers[0]] == [["shuffle_3x3"], ["shuffle_xception"]]
    assert "backbone.layers.0.1._candidates.shuffle_xception.branch2.0.depthwise_conv.conv.weight" in model.state_dict()
    assert model(_images()).shape == (2, 3)
    # As the file of DSNAS's paper is written.
    (tmp_path / "flat.yaml").write_text(SPOS.replace(":\n  chosen", ""))
    flat = load_fix_subnet(_spos(), tmp_path / "flat.yaml")
    assert flat.state_dict().keys() == model.state_dict().keys()
    for wrong, message in (("shuffle_9x9", "expected one of"), ("", "expected one of")):
        (tmp_path / "wrong.yaml").write_text(SPOS.replace("shuffle_xception", wrong))
        with pytest.raises(ModelError, match=f"mutable 'backbone.layers.0.1': {message}"):
            load_fix_subnet(_spos(), tmp_path / "wrong.yaml")
    other = SPOS + "backbone.layers.3.0:\n  chosen: shuffle_3x3\n"
    (tmp_path / "other.yaml").write_text(other)
    with pytest.raises(ModelError, match=r"chooses 'backbone.layers.3.0', which SearchableImageClassifier has not"):
        load_fix_subnet(_spos(), tmp_path / "other.yaml")


def test_mobilenet_v2(tmp_path):
    block = {"type": "MBBlock", "kernel_size": 3, "expand_ratio": 2, "act_cfg": {"type": "ReLU6"}}
    choice = {"type": "mmrazor.OneShotMutableOP", "candidates": {"mb_k3e2": block, "identity": {"type": "Identity"}}}
    backbone = SearchableMobileNetV2([[8, 1, 1, choice], [16, 2, 2, choice]], first_channels=8, last_channels=24)
    file = tmp_path / "subnet.yaml"
    file.write_text(
        "backbone.layer1.0:\n  chosen: identity\nbackbone.layer2.0:\n  chosen: mb_k3e2\n"
        "backbone.layer2.1:\n  chosen: identity\n"
    )
    model = load_fix_subnet(_model(backbone, 24), file)
    keys = set(model.state_dict())
    assert "backbone.layer2.0._candidates.mb_k3e2.depthwise_conv.conv.weight" in keys
    assert not any(key.startswith(("backbone.layer1.", "backbone.layer2.1.")) for key in keys)
    assert model(_images()).shape == (2, 3)


def test_darts_cells_by_alias(tmp_path):
    candidates = {
        name: {"type": "mmrazor.DartsSepConv", "kernel_size": k}
        for name, k in (("sep_conv_3x3", 3), ("sep_conv_5x5", 5))
    }
    candidates["skip_connect"] = {"type": "mmrazor.DartsSkipConnect", "use_drop_path": True}
    backbone = DartsBackbone(
        in_channels=3,
        base_channels=4,
        mutable_cfg={"type": "mmrazor.DiffMutableOP", "candidates": candidates},
        route_cfg={"type": "mmrazor.DiffChoiceRoute", "with_arch_param": True},
        num_layers=3,
        num_nodes=2,
        out_indices=(2,),
        auxliary=True,
        aux_channels=4,
        aux_out_channels=6,
    )
    text = ""
    for kind in ("normal", "reduce"):
        text += f"{kind}_n2:\n  chosen:\n  - {kind}_n2_p1\n  - {kind}_n2_p0\n"
        text += f"{kind}_n3:\n  chosen:\n  - {kind}_n3_p2\n  - {kind}_n3_p0\n"
        for node in (2, 3):
            for edge in range(node):
                text += f"{kind}_n{node}_p{edge}:\n  chosen:\n  - {'sep_conv_5x5' if edge else 'skip_connect'}\n"
    (tmp_path / "DARTS.yaml").write_text(text)
    model = _model(backbone, backbone.out_channels)
    load_fix_subnet(model, tmp_path / "DARTS.yaml")
    edges = model.backbone.cells[0].nodes[1].edges._edges
    assert {name: list(edge._candidates) for name, edge in edges.items()} == {
        "normal_n3_p0": ["skip_connect"],
        "normal_n3_p2": ["sep_conv_5x5"],
    }
    assert model(_images()).shape == (2, 3)
    # The auxiliary features are there in training alone.
    assert [len(model.train(mode).backbone(_images().repeat(1, 1, 2, 2))) for mode in (False,)] == [1]


ATTENTIVE = """
backbone.first_channels:
  chosen: 8
backbone.last_channels:
  chosen: 24
backbone.layers.1.kernel_size:
  chosen: 3
backbone.layers.1.expand_ratio:
  chosen: 1
backbone.layers.1.depth:
  chosen: 1
backbone.layers.1.out_channels:
  chosen: 8
backbone.layers.2.kernel_size:
  chosen: 5
backbone.layers.2.expand_ratio:
  chosen: 3
backbone.layers.2.depth:
  chosen: 2
backbone.layers.2.out_channels:
  chosen: 16
input_shape:
  chosen:
  - 24
  - 24
"""
SPACE = {
    "kernel_size": [[3, 3, 2], [3, 5, 2]],
    "num_blocks": [[1, 2, 1], [1, 3, 1]],
    "expand_ratio": [[1, 1, 1], [2, 4, 1], [2, 2, 1]],
    "num_out_channels": [[8, 16, 8], [8, 16, 8], [16, 24, 8], [24, 48, 24]],
}


def _attentive(fine_grained=False, conv="BigNasConv2d"):
    backbone = AttentiveMobileNetV3(
        SPACE, stride_list=[1, 2], with_se_list=[False, True], fine_grained_mode=fine_grained, conv_cfg={"type": conv}
    )
    return _model(backbone, 48, True, connect_head={"connect_with_backbone": "backbone.last_mutable_channels"})


def test_attentive_nas(tmp_path):
    (tmp_path / "A0.yaml").write_text(ATTENTIVE)
    model = load_fix_subnet(_attentive(), tmp_path / "A0.yaml")
    backbone = model.backbone
    assert backbone.first_conv.conv.weight.shape == (8, 3, 3, 3)
    assert (len(backbone.layer1), len(backbone.layer2)) == (1, 2)
    # A 5x5 depthwise convolution over 8 * 3 channels.
    assert backbone.layer2[0].depthwise_conv.conv.weight.shape == (24, 1, 5, 5)
    assert backbone.last_conv.feature_mix_layer.conv.weight.shape == (24, 32, 1, 1)
    assert model.head.fc.weight.shape == (3, 24)
    sizes = []
    backbone.first_conv.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape[2:])))
    assert model(_images()).shape == (2, 3)
    assert sizes == [(24, 24)]


def test_once_for_all(tmp_path):
    text = ATTENTIVE.replace("layers.1.kernel_size", "layers.1.0.kernel_size").replace(
        "layers.1.expand_ratio", "layers.1.0.expand_ratio"
    )
    text += "backbone.layers.1.1.kernel_size:\n  chosen: 3\nbackbone.layers.1.1.expand_ratio:\n  chosen: 1\n"
    lines = text.splitlines()
    for key in ("kernel_size", "expand_ratio"):
        at = lines.index(f"backbone.layers.2.{key}:")
        del lines[at : at + 2]
    for block, (kernel, ratio, squeezed) in enumerate(((5, 3, 4), (3, 2, 2), (3, 4, 3))):
        prefix = f"backbone.layers.2.{block}"
        lines += [f"{prefix}.kernel_size:", f"  chosen: {kernel}", f"{prefix}.expand_ratio:", f"  chosen: {ratio}"]
        lines += [f"{prefix}.expand_ratio_se:", f"  chosen: {squeezed}"]
    (tmp_path / "OFA.yaml").write_text("\n".join(lines))
    model = load_fix_subnet(_attentive(True, "OFAConv2d"), tmp_path / "OFA.yaml")
    first, second = model.backbone.layer2
    assert first.depthwise_conv.conv.weight.shape == (24, 1, 5, 5)
    assert second.depthwise_conv.conv.weight.shape == (32, 1, 3, 3)
    # 8 * 4 // 4 squeezed channels of the first block, 16 * 2 // 4 of the second.
    assert [part.se.conv1.conv.out_channels for part in (first, second)] == [8, 8]
    assert not any("trans_matrix" in key for key in model.state_dict())
    assert model(_images()).shape == (2, 3)


def test_autoformer(tmp_path):
    backbone = AutoformerBackbone(
        32, 8, mlp_ratios=(1.0, 2.0), num_heads=(1, 2), depth=(1, 2), embed_dims=(16, 24), head_dims=8
    )
    model = _model(backbone, 24, connect_head={"connect_with_backbone": "backbone.last_mutable"})
    text = "architecture.backbone.base_embed_dims:\n  chosen: 8\n"
    for block, (heads, ratio) in enumerate(((1, 2.0), (2, 1.0))):
        prefix = f"architecture.backbone.blocks.{block}"
        text += f"{prefix}.attn.mutable_attrs.num_heads:\n  chosen: {heads}\n"
        text += f"{prefix}.mutable_mlp_ratios:\n  chosen: {ratio}\n"
        # What is derived is written too, and not read: it is wrong in the published file.
        text += f"{prefix}.middle_channels:\n  chosen: 3.5\n{prefix}.mutable_q_embed_dims:\n  chosen: 10\n"
    text += (
        "architecture.backbone.mutable_depth:\n  chosen: 2\narchitecture.backbone.mutable_embed_dims:\n  chosen: 16\n"
    )
    (tmp_path / "AUTOFORMER.yaml").write_text(text)
    load_fix_subnet(model, tmp_path / "AUTOFORMER.yaml", extra_prefix="architecture.")
    blocks = list(model.backbone.blocks)
    assert [block.attn.w_qs.weight.shape for block in blocks] == [(8, 16), (16, 16)]
    assert [block.fc1.weight.shape for block in blocks] == [(32, 16), (16, 16)]
    assert model.backbone.pos_embed.shape == (1, 17, 16)
    assert model(_images()).shape == (2, 3)
