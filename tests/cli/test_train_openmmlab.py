"""``razordeploy train`` on a plain model's OpenMMLab config, from random weights to a checkpoint that is deployed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from razordeploy.capture.build import build_model
from razordeploy.cli.train import train
from razordeploy.config.recipe import load_recipe
from tests.integrations import guide

pytest.importorskip("mmcls", reason="needs mmcls")
pytestmark = pytest.mark.filterwarnings("ignore")

CONFIG = """
_base_ = ["mmcls::resnet/resnet18_8xb32_in1k.py"]
model = dict(
    backbone=dict(type="mmrazor.WideResNet", _delete_=True, depth=10, widen_factor=1),
    head=dict(num_classes=2, in_channels=64, topk=(1,)),
)
data_preprocessor = dict(num_classes=2)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomResizedCrop", scale=32),
    dict(type="mmrazor.AutoAugment", policies="v0"),
    dict(type="PackClsInputs"),
]
_loader = dict(batch_size=4, num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline), **_loader)
val_dataloader = dict(**_loader)
val_evaluator = dict(topk=(1,))
train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(lr=0.01))
checkpoint = "work/trained.pth"
deploy = dict(input_shape=(3, 32, 32))
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy_cfgs").mkdir()
    guide.write_images(tmp_path)
    file = tmp_path / "r.py"
    file.write_text(CONFIG)
    return file


def test_trained_where_the_recipe_looks_for_it(config):
    path = train(str(config), overrides={})
    assert path == Path("work/trained.pth")
    recipe = load_recipe(config)
    trained = build_model(recipe).module
    start = build_model(load_recipe(config, {"checkpoint": "None"})).module
    assert not torch.equal(trained.backbone.conv1.weight, start.backbone.conv1.weight)
    assert trained(torch.randn(2, 3, 32, 32)).shape == (2, 2)


def test_it_goes_on_from_a_checkpoint(config):
    first = train(str(config), overrides={})
    kept = torch.load(first, weights_only=True)
    second = train(str(config), overrides={"optim_wrapper.optimizer.lr": "0.0"}, work_dir=Path("on"), go_on=True)
    found = torch.load(second, weights_only=True)
    assert torch.equal(found["head.fc.weight"], kept["head.fc.weight"])
