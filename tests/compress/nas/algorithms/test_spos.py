from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.compress.nas.algorithms.spos import SPOS
from razordeploy.compress.nas.supernets.digits import spos_digits
from razordeploy.compress.nas.train import build_supernet, train_supernet
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import ModelError, RecipeError
from razordeploy.subnet.fix import load_fix_subnet


def _algorithm():
    torch.manual_seed(0)
    return SPOS(architecture=spos_digits(width=4))


def _batch(count=4):
    return torch.randn(count, 1, 8, 8), torch.arange(count) % 10


def test_one_path_runs_a_step():
    algorithm = _algorithm()
    seen = set()
    for _ in range(3):
        algorithm.zero_grad()
        algorithm(*_batch(), mode="loss")["loss"].backward()
        choices = algorithm.mutator.current_choices
        seen.add(tuple(choices.values()))
        for name, members in algorithm.mutator.search_groups.items():
            for candidate, operation in members[0]._candidates.items():
                trained = {parameter.grad is not None for parameter in operation.parameters()}
                assert trained == ({candidate == choices[name]} if trained else set()), name
    assert len(seen) > 1


def test_a_model_without_choices_is_refused():
    with pytest.raises(ModelError, match="has nothing to choose"):
        SPOS(architecture=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    with pytest.raises(RecipeError, match="expected the mutator of a supernet, got ChannelMutator"):
        SPOS(architecture=spos_digits(), mutator={"type": "ChannelMutator"})
    with pytest.raises(RecipeError, match="unknown mutator 'NasMutater'"):
        SPOS(architecture=spos_digits(), mutator={"type": "NasMutater"})


def test_the_shipped_recipe_trains(tmp_path):
    options = {"train.epochs": "1", "train.batch_size": "256", "checkpoint": "None"}
    recipe = load_recipe("nas/digits/spos_supernet.py", {**options, "model.architecture.width": "4"})
    path = train_supernet(recipe, work_dir=tmp_path)
    assert path.name == "supernet.pth"
    assert not path.with_name("fix_subnet.yaml").exists()
    algorithm = build_supernet(recipe)
    before = {key: value.clone() for key, value in algorithm.architecture.state_dict().items()}
    algorithm.architecture.load_state_dict(torch.load(path), strict=True)
    assert any(not torch.equal(before[key], value) for key, value in algorithm.architecture.state_dict().items())
    subnet = {name: {"chosen": "mb_k3e2"} for name in algorithm.mutator.search_groups}
    model = load_fix_subnet(spos_digits(width=4), subnet)
    assert model(_batch()[0]).shape == (4, 10)
    key = "backbone.layers.0.1"
    with pytest.raises(ModelError, match=f"mutable '{key}': expected one of .*'identity'.*, got 'mb_k9e2'"):
        load_fix_subnet(spos_digits(width=4), {**subnet, key: {"chosen": "mb_k9e2"}})
