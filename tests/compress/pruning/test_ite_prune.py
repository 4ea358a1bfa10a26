"""Pruning towards a target: when, how much, and that what is gone stays gone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from razordeploy.compress.pruning.algorithms.dcff import DCFF, temperature
from razordeploy.compress.pruning.algorithms.ite_prune import ItePruneAlgorithm
from razordeploy.compress.pruning.algorithms.ratio import RatioPruner
from razordeploy.compress.pruning.result import full_width, sliced
from razordeploy.errors import ModelError, RecipeError
from razordeploy.subnet.fix import load_fix_subnet
from tests.compress.distill.tiny import images, targets, tiny
from tests.compress.pruning.conftest import at

FIRST, SECOND = "conv1_(0, 4)_4", "conv2_(0, 8)_8"


def widths(algorithm):
    return {unit.name: unit.mutable_channel.activated_channels for unit in algorithm.mutator.mutable_units}


@pytest.fixture
def l1(mutator_cfg):
    def make(**options):
        config = mutator_cfg("ChannelMutator", "L1MutableChannelUnit")
        return ItePruneAlgorithm(tiny(), config, **options).train()

    return make


def test_steps_come_at_their_iterations_and_remove_equal_parts(l1):
    algorithm = l1(target_pruning_ratio={SECOND: 0.25}, step_freq=3, prune_times=3)
    seen = []
    for iteration in range(10):
        at(algorithm, iteration)
        algorithm.loss(images(), targets())
        seen.append(widths(algorithm)[SECOND])
    assert seen == [6, 6, 6, 4, 4, 4, 2, 2, 2, 2]
    assert widths(algorithm)[FIRST] == 4


def test_without_a_schedule_all_goes_at_the_first_step(l1):
    algorithm = l1(target_pruning_ratio=0.5, step_freq=3, prune_times=3, linear_schedule=False)
    algorithm.loss(images(), targets())
    assert widths(algorithm) == {FIRST: 2, SECOND: 4}


def test_nothing_is_pruned_in_validation(l1):
    algorithm = l1(target_pruning_ratio=0.5).eval()
    algorithm(images(), mode="predict")
    algorithm.loss(images(), targets())
    assert widths(algorithm) == {FIRST: 4, SECOND: 8}


def test_what_is_gone_does_not_come_back(l1):
    # Ranked anew among all, a channel that went would return with weights that nobody has trained since.
    algorithm = l1(target_pruning_ratio={SECOND: 2}, prune_times=2)
    algorithm.loss(images(), targets())
    unit = algorithm.mutator.unit(SECOND)
    first = unit.mask.clone()
    with torch.no_grad():
        algorithm.architecture.conv2.weight[first] *= 1e-3
    at(algorithm, 1)
    algorithm.loss(images(), targets())
    assert int(unit.mask.sum()) == 2 and not bool((unit.mask & ~first).any())
    assert not bool(algorithm.architecture.conv2.weight[~unit.mask].any())


def test_a_resumed_run_keeps_its_masks(l1):
    algorithm = l1(target_pruning_ratio=0.5, step_freq=2, prune_times=2)
    for iteration in range(3):
        at(algorithm, iteration)
        algorithm.loss(images(), targets())
    other = l1(target_pruning_ratio=0.5, step_freq=2, prune_times=2)
    other.load_state_dict(algorithm.state_dict())
    at(other, 3)
    other.loss(images(), targets())
    for mine, its in zip(algorithm.mutator.all_units, other.mutator.all_units, strict=True):
        assert torch.equal(mine.mask, its.mask)


def test_the_choices_of_the_config_are_a_target(mutator_cfg):
    config = mutator_cfg("ChannelMutator", "L1MutableChannelUnit")
    config["channel_unit_cfg"]["units"][SECOND]["choice"] = 3
    algorithm = ItePruneAlgorithm(tiny(), config, prune_times=1).train()
    assert widths(algorithm)[SECOND] == 8
    algorithm.loss(images(), targets())
    assert widths(algorithm)[SECOND] == 3


BAD = {
    "zero": ({"target_pruning_ratio": {SECOND: 0}}, ModelError, "from 1 to 8, got 0"),
    "wide": ({"target_pruning_ratio": {SECOND: 9}}, ModelError, "from 1 to 8, got 9"),
    "name": ({"target_pruning_ratio": {"conv3_(0, 8)_8": 0.5}}, ModelError, "did you mean"),
    "output": ({"target_pruning_ratio": {"fc_(0, 3)_3": 2}}, RecipeError, "'fc_\\(0, 3\\)_3' cannot be pruned"),
    "steps": ({"prune_times": 0}, RecipeError, "expected prune_times of at least 1, got 0"),
    "two names": ({"mutator": {}}, RecipeError, "mutator_cfg and mutator are two names of one thing"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(l1, case):
    options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        l1(**options)


def test_a_mutator_of_another_algorithm_is_refused(mutator_cfg):
    with pytest.raises(RecipeError, match="DCFF needs a DCFFChannelMutator, got ChannelMutator"):
        DCFF(tiny(), mutator_cfg("ChannelMutator", "L1MutableChannelUnit"))


def test_one_ratio_for_all(mutator_cfg):
    def pruned(**options):
        algorithm = RatioPruner(tiny(), mutator=mutator_cfg("ChannelMutator", "L1MutableChannelUnit"), **options)
        algorithm.train().loss(images(), targets())
        return algorithm

    assert widths(pruned(ratio=0.5)) == {FIRST: 2, SECOND: 4}
    assert widths(pruned(ratio=0.01)) == {FIRST: 1, SECOND: 1}
    assert widths(pruned(ratio=0.6, divisor=4)) == {FIRST: 4, SECOND: 4}
    assert widths(pruned(ratio=0.5, except_start_keys=["conv1"])) == {FIRST: 4, SECOND: 4}
    # A layer between two units keeps r * r of its parameters.
    algorithm = pruned(ratio=0.5)
    assert sliced(algorithm)[1].conv2.weight.numel() == 0.25 * algorithm.architecture.conv2.weight.numel()
    with pytest.raises(RecipeError, match="a ratio above 0 and up to 1, got 1.5"):
        RatioPruner(tiny(), ratio=1.5)


def test_temperature_falls_with_epochs():
    # mmrazor counts iterations, by which it is at its end after the first hundredth of an epoch.
    assert temperature(0, 120) == pytest.approx(1.0)
    assert temperature(1, 120) == pytest.approx(2.1637e-4, rel=1e-3)
    assert temperature(5, 120) == pytest.approx(1.0136e-4, rel=1e-3)
    for epochs in (1, 2, 120):
        assert temperature(epochs, epochs) == pytest.approx(1e-4, rel=1e-6)
        falling = [temperature(epoch, epochs) for epoch in range(epochs + 1)]
        assert falling == sorted(falling, reverse=True) and math.isfinite(sum(falling))


@pytest.fixture
def dcff(mutator_cfg):
    return DCFF(tiny(), mutator_cfg("DCFFChannelMutator", "DCFFChannelUnit"), target_pruning_ratio=0.5).train()


def test_filters_are_fused_once_an_epoch(dcff):
    calls = []
    original = dcff.mutator.calc_information
    dcff.mutator.calc_information = lambda tau: (calls.append(tau), original(tau))
    for iteration in range(12):
        at(dcff, iteration, epoch=iteration // 4, epochs=3)
        dcff.loss(images(), targets())
    assert calls == [temperature(epoch, 3) for epoch in range(3)]
    assert widths(dcff) == {FIRST: 2, SECOND: 4}


def test_a_cold_fusion_is_its_own_filters(dcff):
    at(dcff, 0, epoch=99, epochs=100)
    dcff.loss(images(), targets())
    conv = dcff.architecture.conv2
    fused = sliced(dcff.eval())[1].conv2.weight
    filters = conv.weight[:, dcff.mutator.unit(FIRST).mask]
    distance = torch.cdist(fused.flatten(1), filters.flatten(1)).detach()
    assert float(distance.min(1).values.max()) < 1e-5


@pytest.mark.parametrize("kind", ["l1", "dcff"])
def test_the_checkpoint_slices_to_what_was_trained(l1, dcff, kind):
    algorithm = l1(target_pruning_ratio={FIRST: 3, SECOND: 0.5}) if kind == "l1" else dcff
    optimizer = torch.optim.SGD(algorithm.parameters(), 0.05, momentum=0.9)
    for iteration in range(4):
        at(algorithm, iteration, epoch=iteration)
        optimizer.zero_grad()
        algorithm.loss(images(), targets())["loss"].backward()
        optimizer.step()
    algorithm.eval().settle()
    expected = algorithm(images())
    subnet, static = sliced(algorithm)
    whole = full_width(algorithm)
    assert type(static) is type(whole) is type(tiny())
    torch.testing.assert_close(static(images()), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole(images()), expected, atol=1e-5, rtol=0)
    again = tiny().eval()
    again.load_state_dict(whole.state_dict(), strict=True)
    load_fix_subnet(again, subnet)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in static.state_dict().items()}
    torch.testing.assert_close(again(images()), expected, atol=1e-5, rtol=0)
    assert isinstance(again.conv1, nn.Conv2d) and type(again.conv1) is nn.Conv2d
