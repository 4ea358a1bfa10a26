"""WideResNet: names and shapes of mmrazor's checkpoints, published parameter counts, frozen stages."""

from __future__ import annotations

import pytest
import torch

import razordeploy.registry  # noqa: F401  (makes the scope known)
from razordeploy.errors import ModelError
from razordeploy.models.wide_resnet import WideResNet


@pytest.mark.parametrize(("depth", "widen", "millions"), [(16, 2, 0.69), (28, 4, 5.85), (40, 2, 2.24), (16, 8, 10.96)])
def test_parameters_as_published(depth, widen, millions):
    """With the classifier of 10 classes, as in tables 3 and 4 of the paper and of what cites it."""
    network = WideResNet(depth, widen)
    count = sum(p.numel() for p in network.parameters()) + 10 * (network.feat_dim + 1)
    assert count / 1e6 == pytest.approx(millions, abs=0.006)


def test_names_and_shapes():
    network = WideResNet(16, 2).eval()
    keys = set(network.state_dict())
    assert {"conv1.weight", "layer1.0.bn1.weight", "layer1.0.downsample.weight", "layer3.1.conv2.weight"} <= keys
    assert "bn1.weight" in keys and "layer1.1.downsample.weight" not in keys
    (last,) = network(torch.randn(2, 3, 32, 32))
    assert last.shape == (2, 128, 8, 8)


def test_frozen_stages_stay_as_they_are():
    network = WideResNet(10, 1, frozen_stages=1).train()
    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "bn1"}
    assert not network.layer1[0].bn1.training and network.layer2[0].bn1.training


def test_a_classifier_of_mmcls():
    pytest.importorskip("mmcls", reason="needs mmcls")
    from mmengine.registry import MODELS, DefaultScope

    from razordeploy.data.mm import registry_scope

    with registry_scope("mmcls"), DefaultScope.overwrite_default_scope("mmcls"):
        model = MODELS.build(
            {
                "type": "ImageClassifier",
                "backbone": {"type": "mmrazor.WideResNet", "depth": 10, "widen_factor": 1, "num_stages": 3},
                "neck": {"type": "GlobalAveragePooling"},
                "head": {"type": "LinearClsHead", "num_classes": 10, "in_channels": 64},
            }
        )
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_what_there_is_not():
    with pytest.raises(ModelError, match="expected a depth of 10, 16, 22, 28, 40"):
        WideResNet(18)
    with pytest.raises(ModelError, match="Conv2d and BN; got 16, 3, Conv2d and GN"):
        WideResNet(16, norm_cfg={"type": "GN"})
