"""Bases of mmrazor: parts that a config puts together, whole configs, and what there is not."""

from __future__ import annotations

import pytest

from razordeploy.config.older_bases import find_base
from razordeploy.config.paths import recipes_dir
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import RecipeError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PARTS = recipes_dir() / "_base_"
BACKBONES = sorted(path.stem for path in (PARTS / "nas_backbones").glob("*.py"))
SETTINGS = sorted(path.stem for path in (PARTS / "settings").glob("*.py"))


def test_names_of_mmrazor():
    assert len(BACKBONES) == 6 and len(SETTINGS) == 10


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_backbone_beside_a_setting(tmp_path, backbone):
    pytest.importorskip("mmcls", reason="needs mmcls")
    setting = {"darts_supernet": "cifar10_darts_supernet"}.get(backbone, "imagenet_bs1024_spos")
    file = tmp_path / "supernet.py"
    file.write_text(
        "_base_ = [\n"
        "    'mmcls::_base_/default_runtime.py',\n"
        f"    'mmrazor::_base_/settings/{setting}.py',\n"
        f"    'mmrazor::_base_/nas_backbones/{backbone}.py',\n"
        "]\n"
        "model = dict(type='mmrazor.SPOS', architecture=dict(type='mmcls.ImageClassifier',\n"
        "    backbone=_base_.nas_backbone), mutator=dict(type='mmrazor.NasMutator'))\n"
    )
    recipe = load_recipe(file)
    assert recipe.model["architecture"]["backbone"]["type"].startswith("mmrazor.")
    assert recipe.config["train_cfg"]["max_epochs"] == (50 if "darts" in setting else 300)
    if backbone != "darts_supernet":
        from razordeploy.registry import build_model

        assert build_model(recipe.model["architecture"]["backbone"]) is not None


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting(tmp_path, setting):
    pytest.importorskip("mmcls", reason="needs mmcls")
    file = tmp_path / "s.py"
    file.write_text(f"_base_ = 'mmrazor::_base_/settings/{setting}.py'\nmodel = dict(type='a:b')\n")
    found = load_recipe(file).config
    assert found["train_dataloader"]["batch_size"] >= 64 and "optim_wrapper" in found and "param_scheduler" in found


def test_whole_configs_by_the_name_of_the_file(tmp_path):
    pytest.importorskip("mmcls", reason="needs mmcls")
    assert find_base("mmrazor::vanilla/mmcls/wide-resnet/wrn28-w4_b16x8_cifar10.py").parent.name == "mmcls"
    file = tmp_path / "mine.py"
    file.write_text(
        "_base_ = ['mmrazor::nas/mmcls/spos/spos_shufflenet_supernet_8xb128_in1k.py']\ntrain_cfg = dict(max_epochs=3)\n"
    )
    recipe = load_recipe(file)
    assert recipe.model["type"] == "mmrazor.SPOS" and recipe.config["train_cfg"]["max_epochs"] == 3


def test_the_model_of_such_a_config(tmp_path):
    pytest.importorskip("mmcls", reason="needs mmcls")
    from razordeploy.capture.config_model import read_model_config

    path = "mmrazor::vanilla/mmcls/wide-resnet/wrn16-w2_b16x8_cifar10.py"
    model = read_model_config({"cfg_path": path, "pretrained": False}, tmp_path, "teacher")
    assert model["backbone"] == {"type": "mmrazor.WideResNet", "num_stages": 3, "depth": 16, "widen_factor": 2}


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("mmrazor::_base_/settings/imagenet_bs1024_sposs.py", "did you mean '_base_/settings/imagenet_bs1024_spos.py'"),
        ("mmrazor::nas/mmcls/spos/spos_supernett.py", "there is no such recipe here"),
        ("mmrazor::pruning/group_fisher_template.py", "mine.py: 'mmrazor::pruning/group_fisher_template.py'"),
    ],
)
def test_what_there_is_not(tmp_path, base, message):
    file = tmp_path / "mine.py"
    file.write_text(f"_base_ = ['{base}']\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert message in str(caught.value)
