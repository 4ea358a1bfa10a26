"""Supernets through the command, and runs that are interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from razordeploy.cli.train import run
from razordeploy.compress.nas.algorithms.spos import SPOS
from razordeploy.compress.nas.hooks import EstimateResourcesHook, GreedySamplerHook
from razordeploy.compress.nas.train import build_supernet, train_supernet
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import CheckpointError, RecipeError
from razordeploy.train.hooks import EpochSeed

ROOT = Path(__file__).resolve().parents[3]
SMALL = {
    "spos": {"train.epochs": "2", "train.batch_size": "256", "model.architecture.width": "4"},
    "dsnas": {
        "train.epochs": "2",
        "train.batch_size": "256",
        "model.architecture.width": "4",
        "model.pretrain_epochs": "0",
    },
    "bignas": {"train.epochs": "2", "train.batch_size": "700", "model.strategy": "sandwich3"},
}


def _recipe(name):
    return load_recipe(f"nas/digits/{name}_supernet.py", SMALL[name])


@pytest.mark.parametrize("name", ["spos", "dsnas"])
def test_a_resumed_run_draws_the_subnets_of_an_uninterrupted_one(name, tmp_path, monkeypatch):
    whole = torch.load(train_supernet(_recipe(name), work_dir=tmp_path / "whole"))
    original = EpochSeed.before_train_epoch

    def interrupted(self, runner):
        if runner.epoch == 1:
            raise KeyboardInterrupt
        original(self, runner)

    monkeypatch.setattr(EpochSeed, "before_train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_supernet(_recipe(name), work_dir=tmp_path / "broken")
    assert not (tmp_path / "broken" / "supernet.pth").exists()
    monkeypatch.undo()
    resumed = torch.load(train_supernet(_recipe(name), work_dir=tmp_path / "broken", resume=True))
    assert all(torch.equal(whole[key], value) for key, value in resumed.items())
    subnets = [tmp_path / folder / "fix_subnet.yaml" for folder in ("whole", "broken")]
    if name == "dsnas":
        assert subnets[0].read_text() == subnets[1].read_text()
    else:
        assert not any(file.exists() for file in subnets)


def test_a_checkpoint_of_another_space_is_not_resumed_from(tmp_path):
    train_supernet(_recipe("spos"), work_dir=tmp_path)
    with pytest.raises(CheckpointError, match="is of another model"):
        train_supernet(_recipe("bignas"), work_dir=tmp_path, resume=True)


def test_the_command_says_what_comes_next(tmp_path, capsys):
    options = {"work_dir": tmp_path, "resume": False, "amp": False, "launcher": "none"}
    run("nas/digits/spos_supernet.py", overrides={**SMALL["spos"], "train.epochs": "1"}, **options)
    assert "next: razordeploy search nas/digits/spos_supernet.py --checkpoint" in capsys.readouterr().out
    run("nas/digits/dsnas_supernet.py", overrides={**SMALL["dsnas"], "train.epochs": "1"}, **options)
    assert "next: razordeploy export nas/digits/dsnas_supernet.py --checkpoint" in capsys.readouterr().out
    assert (Path(tmp_path) / "fix_subnet.yaml").is_file()


GREEDY = """
_base_ = ["nas/digits/spos_supernet.py"]
custom_hooks = [
    dict(type="GreedySamplerHook", interval=3, num_samples=4, top_k=2, schedule_start_iter=0, schedule_end_iter=6,
         init_prob=0.0, max_prob=1.0),
    dict(type="mmrazor.EstimateResourcesHook", interval=1, estimator_cfg=dict(input_shape=(1, 1, 8, 8))),
]
"""


def test_good_paths_are_trained_more_often(tmp_path, monkeypatch):
    recipe = tmp_path / "greedy.py"
    recipe.write_text(GREEDY.replace("nas/digits/spos_supernet.py", str(ROOT / "recipes/nas/digits/spos_supernet.py")))
    trained, hooks = [], {}
    original = SPOS.loss

    def loss(self, inputs, data_samples=None):
        found = original(self, inputs, data_samples)
        if self.sampler is not None:
            trained.append(self.mutator.current_choices)
        return found

    for kind in (GreedySamplerHook, EstimateResourcesHook):
        make = kind.__init__

        def keep(self, *args, make=make, **options):
            hooks[type(self).__name__] = self
            make(self, *args, **options)

        monkeypatch.setattr(kind, "__init__", keep)
    monkeypatch.setattr(SPOS, "loss", loss)
    train_supernet(load_recipe(recipe, {**SMALL["spos"], "train.batch_size": "128"}), work_dir=tmp_path / "run")
    pool = [path.subnet for path in hooks["GreedySamplerHook"].sampler.pool]
    assert len(trained) > 18
    assert all(choices in pool for choices in trained[6:]), "after the schedule's end every path is of the pool"
    costs = hooks["EstimateResourcesHook"].results
    assert len(costs) == 2
    assert costs[0]["params"] == pytest.approx(costs[1]["params"])
    assert costs[0]["macs"] > 0


def test_greedy_sampling_is_for_single_paths(tmp_path):
    recipe = load_recipe("nas/digits/bignas_supernet.py", {**SMALL["bignas"], "custom_hooks": "[]"})
    recipe.config["custom_hooks"] = [{"type": "GreedySamplerHook"}]
    with pytest.raises(RecipeError, match="BigNAS does not train one path a step"):
        train_supernet(recipe, work_dir=tmp_path)


def test_bad_settings_are_one_line():
    for key, value, message in (
        ("model.strategi", "3", "BigNAS has no keyword 'strategi'.*did you mean 'strategy'"),
        ("model.mutator.type", "NasMutatr", "unknown mutator 'NasMutatr'"),
    ):
        with pytest.raises(RecipeError) as caught:
            build_supernet(load_recipe("nas/digits/bignas_supernet.py", {key: value}))
        text = f"{caught.value} {getattr(caught.value, 'hint', '')}"
        assert __import__("re").search(message, text), text
