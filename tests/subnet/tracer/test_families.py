"""Families of mmcls in miniature: permutation, removal of zeros, and the form that pruning gives them."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from razordeploy.data.mm import registry_scope
from razordeploy.subnet.slice import slice_model

pytest.importorskip("mmcls", reason="needs mmcls")

VIT = {"embed_dims": 16, "num_layers": 2, "num_heads": 4, "feedforward_channels": 32}
FAMILIES = {
    "ResNeXt": ({"type": "ResNeXt",
                 "depth": 50, "groups": 32, "width_per_group": 4, "num_stages": 2, "out_indices": (1,),
                 "strides": (1, 2), "dilations": (1, 1)}, 512),
    "ResNeSt": ({"type": "ResNeSt", "depth": 50, "num_stages": 2, "out_indices": (1,), "strides": (1, 2),
                 "dilations": (1, 1), "stem_channels": 8}, 512),
    "ShuffleNetV2": ({"type": "ShuffleNetV2", "widen_factor": 1.0, "out_indices": (3,)}, 1024),
    "ShuffleNetV1": ({"type": "ShuffleNetV1", "groups": 3, "out_indices": (2,)}, 960),
    "MobileNetV3": ({"type": "MobileNetV3", "arch": "small"}, 576),
    "VisionTransformer": ({"type": "VisionTransformer", "arch": VIT, "img_size": 16, "patch_size": 8}, 16),
    "SwinTransformer": ({"type": "SwinTransformer", "img_size": 64, "window_size": 2,
                         "arch": {"embed_dims": 8, "depths": [2, 2, 1, 1], "num_heads": [2, 4, 4, 4]}}, 64),
    "ConvNeXt": ({"type": "ConvNeXt", "arch": {"depths": [1, 1, 1, 1], "channels": [8, 16, 16, 24]}}, 24),
    "PoolFormer": ({"type": "PoolFormer", "arch": "s12"}, 512),
}  # fmt: skip


class Classifier(nn.Module):
    """A backbone of mmcls and a linear layer."""

    def __init__(self, config, channels):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with registry_scope("mmcls"):
                from mmcls.registry import MODELS

                self.backbone = MODELS.build(config)
        self.fc = nn.Linear(channels, 4)

    def forward(self, x):
        x = self.backbone(x)[-1]
        x = x[-1] if isinstance(x, (list, tuple)) else x
        return self.fc(x.mean((2, 3)) if x.dim() == 4 else x)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore")
def test_family(name, oracle):
    config, channels = FAMILIES[name]
    size = config.get("img_size", 32)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    check = oracle(Classifier(dict(config), channels), x)
    check.permute_together()
    check.remove_zeros(0.5)
    made = slice_model(check.model, check.graph, 0.5, example_inputs=check.inputs)
    assert made.form == "module", made.why
    assert sum(p.numel() for p in made.module.parameters()) < 0.45 * sum(p.numel() for p in check.model.parameters())
