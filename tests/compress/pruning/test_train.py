"""``razordeploy train`` on pruning recipes: what is written, what goes on, what is refused first."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from razordeploy.capture.checkpoint import load_state_dict
from razordeploy.cli.train import run
from razordeploy.compress.pruning.finetune import build_sub_model
from razordeploy.compress.pruning.train import train_pruning
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import CheckpointError, ModelError, RecipeError
from razordeploy.subnet.fix import load_fix_subnet
from tests.compress.distill.tiny import images, tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HERE = "tests.compress.distill.tiny"
PARSE = {"type": "ChannelAnalyzer", "demo_input": (1, 1, 8, 8)}
MODEL: dict[str, Any] = {
    "type": "mmrazor.ItePruneAlgorithm",
    "architecture": {"type": f"{HERE}:tiny"},
    "mutator_cfg": {
        "type": "ChannelMutator",
        "channel_unit_cfg": {"type": "L1MutableChannelUnit"},
        "parse_cfg": PARSE,
    },
    "target_pruning_ratio": 0.5,
}
BASE: dict[str, Any] = {
    "data": {"type": f"{HERE}:samples"},
    "train": {"epochs": 2, "batch_size": 16, "lr": 0.01, "threads": 1},
    "checkpoint": "pruned.pth",
    "deploy": {"backends": ["onnxruntime"], "input_shapes": [(1, 8, 8)]},
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(tiny(7).state_dict(), tmp_path / "trained.pth")


def recipe(tmp_path, model=None, name="recipe.py", **sections):
    content = {**BASE, "model": {**MODEL, **(model or {})}, **sections}
    file = tmp_path / name
    file.write_text("".join(f"{key} = {value!r}\n" for key, value in content.items() if value is not None))
    return str(file)


def test_the_command_leaves_weights_and_a_subnet_that_slices_them(tmp_path, capsys):
    init = {"init_cfg": {"type": "Pretrained", "checkpoint": "trained.pth"}}
    file = recipe(tmp_path, init)
    run(file, work_dir=None, overrides={}, resume=False, amp=False, launcher="none")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "wrote pruned.pth"
    assert lines[1] == f"next: razordeploy export {file} --slice-weight --out pruned"
    model = tiny(3).eval()
    model.load_state_dict(torch.load("pruned.pth", weights_only=True), strict=True)
    whole = model(images())
    small = load_fix_subnet(model, "fix_subnet.yaml")
    torch.testing.assert_close(small(images()), whole, atol=1e-5, rtol=0)
    saved = torch.load("fix_subnet_weight.pth", weights_only=True)
    assert all(torch.equal(value, saved[key]) for key, value in small.state_dict().items())
    assert (tmp_path / "fix_subnet_weight.pth").stat().st_size < (tmp_path / "pruned.pth").stat().st_size
    # What it started from was the checkpoint: those filters are the ones that the norms of its weights keep.
    trained = tiny(7).conv1.weight.detach().abs().flatten(1).sum(1)
    kept = model.conv1.out_channels
    assert kept == 2
    nonzero = torch.load("pruned.pth", weights_only=True)["conv1.weight"].flatten(1).any(1).nonzero().flatten()
    assert set(nonzero.tolist()) == set(trained.topk(2).indices.tolist())


def test_a_cut_run_goes_on(tmp_path):
    file = recipe(tmp_path, {"prune_times": 2, "step_freq": 1, "by_epoch": True})
    train_pruning(load_recipe(file, {"train.epochs": "1"}), work_dir="cut")
    half = torch.load("cut/epoch_1.pth", weights_only=True)["state_dict"]
    assert sum(int(half[key].sum()) for key in half if key.endswith("mask")) == 3 + 6 + 3
    path = train_pruning(load_recipe(file), work_dir="cut", resume=True)
    assert load_fix_subnet(tiny(), path.with_name("fix_subnet.yaml")).conv2.out_channels == 4


def test_slimmable_networks_leave_a_file_for_each_subnet(tmp_path):
    model = {
        "type": "SlimmableNetwork",
        "mutator": {"channel_unit_cfg": {}, "parse_cfg": PARSE},
        "mutator_cfg": None,
        "target_pruning_ratio": None,
    }
    model["mutator"]["channel_unit_cfg"]["default_args"] = {"candidate_choices": [0.25, 1.0], "choice_mode": "ratio"}
    content = {**MODEL, **model}
    for key in ("mutator_cfg", "target_pruning_ratio"):
        del content[key]
    file = tmp_path / "slim.py"
    file.write_text("".join(f"{k} = {v!r}\n" for k, v in {**BASE, "model": content, "checkpoint": None}.items()))
    path = train_pruning(load_recipe(file), work_dir="slim")
    assert path.name == "supernet.pth"
    assert sorted(p.name for p in path.parent.glob("subnet_*")) == [
        *("subnet_0.pth", "subnet_0.yaml", "subnet_1.pth", "subnet_1.yaml")
    ]
    assert not (path.parent / "fix_subnet.yaml").exists()
    for index, width in ((0, 1), (1, 4)):
        small = load_fix_subnet(tiny(), path.parent / f"subnet_{index}.yaml")
        small.load_state_dict(torch.load(path.parent / f"subnet_{index}.pth", weights_only=True), strict=True)
        assert small.conv1.out_channels == width
    assert any("candidate_bn" in key for key in load_state_dict(path))


def test_a_subnet_is_finetuned_by_its_files(tmp_path, capsys):
    path = train_pruning(load_recipe(recipe(tmp_path)), work_dir="first")
    expected = torch.load(path.with_name("fix_subnet_weight.pth"), weights_only=True)
    model = {
        "type": "mmrazor.sub_model",
        "cfg": {"type": f"{HERE}:tiny"},
        "fix_subnet": "first/fix_subnet.yaml",
        "init_cfg": {"type": "Pretrained", "checkpoint": "first/fix_subnet_weight.pth"},
    }
    content = {**BASE, "model": model, "checkpoint": "finetuned.pth"}
    file = tmp_path / "finetune.py"
    file.write_text("".join(f"{key} = {value!r}\n" for key, value in content.items()))
    built = build_sub_model(load_recipe(file)).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in built.items())
    run(str(file), work_dir=None, overrides={}, resume=False, amp=False, launcher="none")
    assert capsys.readouterr().out.splitlines()[0] == "wrote finetuned.pth"
    tuned = torch.load("finetuned.pth", weights_only=True)
    assert tuned["conv1.weight"].shape[0] == 2 and not torch.equal(tuned["fc.weight"], expected["fc.weight"])


REFUSED = {
    "algorithm": ({"type": "ItePruneAlgoritm"}, {}, RecipeError, "did you mean 'ItePruneAlgorithm'"),
    "keyword": ({"target_ratio": 0.5}, {}, RecipeError, "no keyword 'target_ratio'"),
    "unit": ({"target_pruning_ratio": {"conv1_(0, 4)_5": 0.5}}, {}, ModelError, "did you mean 'conv1_\\(0, 4\\)_4'"),
    "file": ({"init_cfg": {"type": "Pretrained", "checkpoint": "none.pth"}}, {}, CheckpointError, "none.pth"),
    "url": (
        {"init_cfg": {"type": "Pretrained", "checkpoint": "https://x/y"}},
        {},
        CheckpointError,
        "would download",
    ),
    "data": ({}, {"data": None}, RecipeError, "expected 'train_dataloader' in the recipe"),
    "hook": ({}, {"custom_hooks": [{"type": "PruningStructureHook", "intervall": 1}]}, RecipeError, "'intervall'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_before_training(tmp_path, case):
    model, sections, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        run(
            recipe(tmp_path, model, **sections),
            work_dir=None,
            overrides={},
            resume=False,
            amp=False,
            launcher="none",
        )
    assert not list(tmp_path.rglob("epoch_*.pth")) and not (tmp_path / "pruned.pth").exists()
