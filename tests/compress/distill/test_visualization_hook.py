"""RazorVisualizationHook in a training run: what is drawn, when, and that nothing stays behind."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch

from razordeploy.compress.distill.hooks import RazorVisualizationHook
from razordeploy.compress.distill.train import train_distillation
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import ModelError, RecipeError
from tests.compress.distill.tiny import kd, outputs, tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
HERE = "tests.compress.distill.tiny"
MAPS = {"recorders": {"a": outputs("relu1"), "b": outputs("conv2")}, "mappings": {"first": {"recorder": "a"}}}


def trained(folder, *hooks, epochs=2):
    torch.save(tiny(7, width=8).state_dict(), folder / "teacher.pth")
    sections = {
        "model": {
            "type": "SingleTeacherDistill",
            "architecture": {"type": f"{HERE}:tiny"},
            "teacher": {"type": f"{HERE}:tiny", "width": 8},
            "teacher_ckpt": str(folder / "teacher.pth"),
            "distiller": kd(),
        },
        "data": {"type": f"{HERE}:samples"},
        "train": {"epochs": epochs, "batch_size": 16, "lr": 0.01, "threads": 1},
        "custom_hooks": list(hooks),
    }
    file = folder / "recipe.py"
    file.write_text("".join(f"{key} = {value!r}\n" for key, value in sections.items()))
    return torch.load(train_distillation(load_recipe(file), work_dir=folder / "run"), weights_only=True)


def test_a_sheet_each_interval_and_the_same_training(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    hook = {"type": "mmrazor.RazorVisualizationHook", **MAPS, "data_idx": [0, 3], "interval": 2, "use_norm": True}
    hook["visualization_cfg"] = {"channel_reduction": None, "topk": 4, "arrangement": [2, 2]}
    with_pictures = trained(tmp_path / "a", hook, epochs=3)
    without = trained(tmp_path / "b", epochs=3)
    files = sorted(p.name for p in (tmp_path / "a" / "run" / "vis_data").glob("*.png"))
    assert files == [f"data_idx{i}_epoch{n}.png" for i in (0, 3) for n in (0, 2)]
    assert with_pictures.keys() == without.keys()
    assert all(torch.equal(with_pictures[key], without[key]) for key in without)
    data = next((tmp_path / "a" / "run" / "vis_data").glob("*.png")).read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert width > 300 and height > 200


def test_paths_from_the_algorithm_and_a_folder(tmp_path):
    maps = {"recorders": {"a": outputs("architecture.relu1")}, "mappings": MAPS["mappings"]}
    trained(tmp_path, {"type": "RazorVisualizationHook", **maps, "out_dir": str(tmp_path / "here")}, epochs=1)
    assert [p.name for p in Path(tmp_path / "here").iterdir()] == ["data_idx0_epoch0.png"]


def test_switched_off(tmp_path):
    trained(tmp_path, {"type": "RazorVisualizationHook", **MAPS, "enabled": False}, epochs=1)
    assert not (tmp_path / "run" / "vis_data").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recorders": {}}, "expected recorders, mappings"),
        ({"channel_reductoin": "squeeze_mean"}, "no keyword 'channel_reductoin'; did you mean 'channel_reduction'"),
        ({"interval": 0}, "an interval of 1 or more"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(RecipeError, match=message):
        RazorVisualizationHook(**{**MAPS, **options})


def test_a_wrong_path_is_refused_before_training(tmp_path):
    maps = {"recorders": {"a": outputs("rellu1")}, "mappings": MAPS["mappings"]}
    with pytest.raises(ModelError, match="no module 'rellu1' in Tiny; did you mean 'relu1'"):
        trained(tmp_path, {"type": "RazorVisualizationHook", **maps}, epochs=1)
    assert not list((tmp_path / "run").glob("epoch_*.pth"))
