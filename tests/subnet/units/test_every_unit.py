"""Sliced, masked, exported and loaded again: the same numbers, for every kind of unit."""

from __future__ import annotations

import copy

import pytest
import torch

from razordeploy.subnet.fix import export_fix_subnet, load_fix_subnet
from razordeploy.subnet.mutators.forward import set_masked
from razordeploy.subnet.mutators.table import MUTATORS

from ..nets import ConvNet, randomise

CHOICES = {
    "stem_(0, 8)_8": 6,
    "expand_(0, 12)_12": 5,
    "branch_(0, 6)_6": 3,
    "last_(0, 10)_10": 4,
    "hidden_(0, 9)_9": 7,
}
KINDS = {
    "SequentialMutableChannelUnit": "ChannelMutator",
    "L1MutableChannelUnit": "ChannelMutator",
    "OneShotMutableChannelUnit": "OneShotChannelMutator",
    "SlimmableChannelUnit": "SlimmableChannelMutator",
    "DCFFChannelUnit": "DCFFChannelMutator",
    "DMCPChannelUnit": "DMCPChannelMutator",
    "GroupFisherChannelUnit": "GroupFisherChannelMutator",
}


def _prepare(config, kind, **default_args):
    extra = {}
    if kind in ("OneShotMutableChannelUnit", "SlimmableChannelUnit"):
        extra = {
            name.partition("_")[0]: {
                "candidate_choices": [number, int(name.rpartition("_")[2])],
                "choice_mode": "number",
            }
            for name, number in CHOICES.items()
        }
        extra["out"] = {"candidate_choices": [4, 4], "choice_mode": "number"}
    if kind == "GroupFisherChannelUnit":
        default_args["mutate_linear"] = True
    if kind == "DCFFChannelUnit":
        default_args["choice_mode"] = "number"
    given = config(kind, default_args, **extra)
    given["parse_cfg"] = {"type": "Config"}
    mutator = MUTATORS[KINDS[kind]](**given)
    model = randomise(ConvNet())
    mutator.prepare_from_supernet(model)
    return model, mutator


@pytest.mark.parametrize("kind", KINDS)
def test_slice_is_mask_is_export(config, kind):
    model, mutator = _prepare(config, kind)
    mutator.set_choices(CHOICES)
    if kind == "SlimmableChannelUnit":
        randomise(model)
    if kind == "DCFFChannelUnit":
        mutator.calc_information(0.5)
    x = torch.randn(3, 3, 8, 8)
    sliced = model(x)
    set_masked(model, True)
    torch.testing.assert_close(model(x), sliced, atol=1e-5, rtol=0)
    set_masked(model, False)

    algorithm = torch.nn.Module()
    algorithm.architecture, algorithm.mutator = model, mutator
    subnet, static = export_fix_subnet(algorithm, slice_weight=True)
    assert type(static) is ConvNet
    torch.testing.assert_close(static(x), sliced, atol=1e-5, rtol=0)
    plain = ConvNet()
    assert [type(m) for m in static.modules()] == [type(m) for m in plain.modules()]
    assert list(static.state_dict()) == list(plain.state_dict())
    assert sum(p.numel() for p in static.parameters()) < 0.5 * sum(p.numel() for p in plain.parameters())
    assert not any(module.training for module in static.modules())
    assert {name: entry["choice"] for name, entry in subnet["channel_unit_cfg"]["units"].items()} == {
        **CHOICES,
        "out_(0, 4)_4": 4,
    }
    # The supernet is still one.
    assert torch.equal(model(x), sliced)
    mutator.set_choices({"hidden_(0, 9)_9": 9} if "OneShot" in kind or "Slimmable" in kind else {"hidden_(0, 9)_9": 8})


@pytest.mark.parametrize("kind", ["SequentialMutableChannelUnit", "L1MutableChannelUnit", "DMCPChannelUnit"])
def test_a_subnet_file_slices_the_same_model_again(config, kind):
    model, mutator = _prepare(config, kind)
    plain = ConvNet()
    plain.load_state_dict(model.state_dict(), strict=True)
    mutator.set_choices(CHOICES)
    subnet, static = export_fix_subnet(model, slice_weight=True, export_channel=True, mutator=mutator)
    again = load_fix_subnet(plain.eval(), subnet)
    assert again is plain
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(again(x), static(x))
    for name, value in static.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_statistics_reach_the_kept_channels_alone(config, kind):
    model, mutator = _prepare(config, kind)
    mutator.set_choices(CHOICES)
    if kind == "DCFFChannelUnit":
        mutator.calc_information(0.5)
    model.train()
    # So that no unit of the hidden layer is dead on this batch.
    model.hidden.bias.data.fill_(20.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(4, 3, 8, 8)).square().mean().backward()
    kept = mutator.unit("hidden_(0, 9)_9").mask
    assert (model.hidden.weight.grad.abs().sum(1) > 0).tolist() == kept.tolist()
    assert (model.out.weight.grad.abs().sum(0) > 0).tolist() == kept.tolist()
    if kind == "DCFFChannelUnit":
        # Every filter has a part in the fused ones.
        assert (model.stem.weight.grad.flatten(1).abs().sum(1) > 0).all()
    gone = ~mutator.unit("stem_(0, 8)_8").mask
    changed = (model.bn1.running_mean - before["bn1.running_mean"]).abs() > 0
    assert not changed[gone].any()


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_saved_with_the_mutator_and_not_with_the_model(config, kind):
    model, mutator = _prepare(config, kind)
    mutator.set_choices(CHOICES)
    state = copy.deepcopy(mutator.state_dict())
    assert "units.0.mutable_channel.mask" in state
    assert not any("mask" in key for key in model.state_dict())
    _, other = _prepare(config, kind)
    other.load_state_dict(state)
    assert other.current_choices == {name: CHOICES[name] for name in other.current_choices}


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_independent(config, kind):
    model, mutator = _prepare(config, kind)
    both = torch.nn.ModuleDict({"architecture": model, "mutator": mutator})
    other = copy.deepcopy(both)
    other["mutator"].set_choices(CHOICES)
    x = torch.randn(1, 8, 4, 4)
    assert other["architecture"].expand(x[:, :6]).shape[1] == 5
    assert model.expand(x).shape[1] == 12
