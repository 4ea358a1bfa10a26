"""The examples of mmrazor's quantization guide run as they are written, and migrate to recipes that say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from razordeploy.config.recipe import load_recipe
from razordeploy.integrations.migrate import migrate
from tests.integrations import guide

pytest.importorskip("mmcls", reason="needs mmcls")
pytestmark = pytest.mark.filterwarnings("ignore")


def run(*words: str) -> int:
    from razordeploy.cli.main import main

    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0)


@pytest.mark.parametrize(("name", "verb"), [("ptq", "ptq"), ("lsq", "qat")])
def test_the_example_runs_as_written(tmp_path, monkeypatch, name, verb):
    files = guide.write(tmp_path)
    guide.write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = ["--set", "calibration.num_samples=8", "--max-drop", "100", "--benchmark-seconds", "0"]
    if verb == "qat":
        options += ["--set", "train_dataloader.batch_size=4", "train_dataloader.num_workers=0"]
        options += ["train_dataloader.persistent_workers=False", "val_dataloader.num_workers=0"]
        options += ["val_dataloader.persistent_workers=False"]
    assert run(verb, str(files[name]), "--work-dir", "out", *options) == 0
    (entry,) = json.loads(Path("out/report.json").read_text())["backends"].values()
    assert entry["coverage"]["int8"] == entry["coverage"]["planned"] == 30


@pytest.mark.parametrize("name", ["ptq", "lsq"])
def test_migrated_is_the_same_recipe(tmp_path, name):
    config = guide.write(tmp_path)[name]
    text = migrate(config)
    recipe = tmp_path / "migrated.py"
    recipe.write_text(text)
    before, after = load_recipe(config), load_recipe(recipe)
    assert before.quantize == after.quantize
    assert after.deploy.backends == before.deploy.backends == ("openvino",)
    assert (after.model["type"], after.checkpoint) == ("ImageClassifier", before.checkpoint)
    assert "MMArchitectureQuant(" not in text and "skipped_methods: not needed" in text
    assert "half of its levels" in text and text.count("half of its levels") == 1
    if name == "ptq":
        assert after.calibration.num_samples == 32 * 32 and "validation images" in text
        assert after.deploy.input_shapes == ((3, 224, 224),)
    else:
        assert after.qat.epochs == 1 and after.qat.freeze_bn_begin == 1 and after.qat.disable_observer_begin == 1
        assert 'type="SGD"' in text and "scales that were saved" in text


def test_what_changed_in_other_configs_is_said(tmp_path):
    config = tmp_path / "dkd.py"
    config.write_text(
        "model = dict(_scope_='mmrazor', type='SingleTeacherDistill',\n"
        "    architecture=dict(type='mmcls.ImageClassifier'),\n"
        "    teacher=dict(type='mmcls.ImageClassifier'), teacher_ckpt='https://example.org/v0/resnet34.pth',\n"
        "    distiller=dict(type='ConfigurableDistiller', distill_losses=dict(\n"
        "        loss_dkd=dict(type='DKDLoss', tau=1, beta=0.5, loss_weight=1, reduction='mean'))))\n"
        "find_unused_parameters = True\nmy_variable = 3\n"
    )
    text = migrate(config)
    assert "was the batch size times the paper's loss" in text
    assert 'teacher_ckpt="checkpoints/resnet34.pth"' in text and "get https://example.org/v0/resnet34.pth first" in text
    assert "my_variable" not in text
    recipe = tmp_path / "ours.py"
    recipe.write_text(text)
    assert load_recipe(recipe).model["distiller"]["distill_losses"]["loss_dkd"]["reduction"] == "mean"


def test_the_command(tmp_path, capsys):
    config = guide.write(tmp_path)["ptq"]
    assert run("migrate", str(config), "-o", str(tmp_path / "new.py")) == 0
    out = capsys.readouterr().out
    assert out.startswith("wrote ") and "next: razordeploy ptq" in out
    assert run("migrate", str(tmp_path / "none.py")) == 2
    assert "expected a config at" in capsys.readouterr().err
    assert run("migrate", str(config), "-o", str(config)) == 2
    (tmp_path / "broken.py").write_text("model = dict(\n")
    assert run("migrate", str(tmp_path / "broken.py")) == 2
