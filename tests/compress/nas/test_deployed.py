"""Recipes of supernets and subnets in mmrazor's form become plain models."""

from __future__ import annotations

import pytest
import torch

from razordeploy.assemble import assemble
from razordeploy.capture.build import build_model
from razordeploy.compress.nas.supernets.digits import darts_digits
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import RecipeError
from razordeploy.subnet.files import write_mapping
from razordeploy.subnet.fix import export_fix_subnet, load_fix_subnet
from razordeploy.subnet.mutators.nas import NasMutator

SUB_MODEL = """
model = dict(
    type="mmrazor.sub_model",
    cfg=dict(type="razordeploy.compress.nas.supernets.digits:darts_digits"),
    fix_subnet="subnet.yaml",
)
deploy = dict(input_shapes=[(1, 8, 8)])
"""
CLASSIFIER = """
_space = dict(
    kernel_size=[[3, 5, 2]], num_blocks=[[1, 2, 1]], expand_ratio=[[1, 2, 1], [2, 2, 1]],
    num_out_channels=[[8, 16, 8], [8, 16, 8], [24, 48, 24]],
)
model = dict(
    type="SCOPEBigNAS",
    architecture=dict(
        type="SCOPESearchableImageClassifier",
        backbone=dict(type="AttentiveMobileNetV3", arch_setting=_space, stride_list=[2], with_se_list=[False]),
        neck=dict(type="SqueezeMeanPoolingWithDropout"),
        head=dict(type="DynamicLinearClsHead", num_classes=3, in_channels=48),
        connect_head=dict(connect_with_backbone="backbone.last_mutable_channels"),
    ),
)
deploy = dict(input_shapes=[(3, 16, 16)])
"""


def test_a_trained_sub_model_is_deployed(tmp_path):
    torch.manual_seed(0)
    supernet = darts_digits()
    mutator = NasMutator()
    mutator.prepare_from_supernet(supernet)
    mutator.set_choices(mutator.sample_choices())
    write_mapping(tmp_path / "subnet.yaml", export_fix_subnet(supernet, "mutable")[0])
    trained = load_fix_subnet(darts_digits(), tmp_path / "subnet.yaml").eval()
    torch.save(trained.state_dict(), tmp_path / "subnet.pth")
    (tmp_path / "recipe.py").write_text(SUB_MODEL)
    built = assemble(load_recipe(tmp_path / "recipe.py"), tmp_path / "subnet.pth")
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(built.module(x), trained(x))
    (tmp_path / "recipe.py").write_text(SUB_MODEL.replace("cfg=", "config="))
    with pytest.raises(RecipeError, match="sub_model needs cfg"):
        assemble(load_recipe(tmp_path / "recipe.py"))


@pytest.mark.parametrize("scope", ["mmrazor.", ""])
def test_a_searchable_classifier_is_a_plain_model(scope, tmp_path):
    pytest.importorskip("mmcls", reason="needs mmcls")
    (tmp_path / "recipe.py").write_text(CLASSIFIER.replace("SCOPE", scope))
    built = build_model(load_recipe(tmp_path / "recipe.py"))
    assert built.module(torch.randn(2, 3, 16, 16)).shape == (2, 3)
