"""Group Fisher as an algorithm: when it prunes, when it stops, and the models of its checkpoints."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from razordeploy.compress.pruning.algorithms.group_fisher import (
    GroupFisherAlgorithm,
    group_fisher_deploy_sub_model,
    group_fisher_sub_model,
    widen,
)
from razordeploy.compress.pruning.result import full_width, sliced
from razordeploy.errors import CheckpointError, ModelError, RecipeError
from razordeploy.subnet.fix import load_fix_subnet
from razordeploy.train.classifier import ShiftAndFlip
from tests.compress.distill.tiny import images, tiny
from tests.compress.pruning.conftest import at, batch

FIRST, SECOND = "conv1_(0, 4)_4", "conv2_(0, 8)_8"


@pytest.fixture
def config(mutator_cfg):
    def make(**init_args):
        return mutator_cfg("GroupFisherChannelMutator", "GroupFisherChannelUnit", {"mutate_linear": True, **init_args})

    return make


@pytest.fixture
def fisher(config):
    def make(init_args=None, **options):
        options = {"interval": 2, **options}
        found = GroupFisherAlgorithm(tiny(), config(**(init_args or {})), data_preprocessor=ShiftAndFlip(), **options)
        return found.train()

    return make


def run(algorithm, steps, lr=0.01):
    wrapper = OptimWrapper(torch.optim.SGD(algorithm.parameters(), lr, momentum=0.9))
    kept = []
    for iteration in range(steps):
        at(algorithm, iteration)
        algorithm.train_step(batch(), wrapper)
        kept.append(sum(unit.mutable_channel.activated_channels for unit in algorithm.mutator.mutable_units))
    return kept


def test_one_channel_goes_at_the_end_of_each_interval(fisher):
    assert run(fisher(), 7) == [12, 11, 11, 10, 10, 9, 9]


def test_the_information_of_the_whole_interval_counts(fisher):
    algorithm = fisher(interval=3)
    run(algorithm, 2)
    assert all(float(unit.normalized_fisher_info.sum()) > 0 for unit in algorithm.mutator.mutable_units)
    run(algorithm, 3)
    assert not any(bool(unit.normalized_fisher_info.any()) for unit in algorithm.mutator.mutable_units)


def test_nothing_is_recorded_between_steps(fisher):
    algorithm = fisher()
    run(algorithm, 1)
    algorithm.loss(*batch())["loss"].backward()
    for unit in algorithm.mutator.mutable_units:
        assert all(not module.recorded_fisher for _, module in unit.readers)


@pytest.mark.parametrize("normalization", ["flops", "act", "none"])
def test_pruning_stops_at_the_target(fisher, normalization):
    algorithm = fisher({"normalization_type": normalization}, interval=1, target_flop_ratio=0.5)
    kept = run(algorithm, 12)
    assert 0.3 < algorithm.flop_ratio <= 0.5 and algorithm.pruning_stopped
    # One channel more would be over the target.
    assert kept[-1] == kept[-2] < 12


def test_its_checkpoint_is_a_model(fisher, config, tmp_path):
    algorithm = fisher(interval=1)
    run(algorithm, 5)
    algorithm.eval().settle()
    expected = algorithm(images())
    torch.save({"state_dict": algorithm.state_dict()}, tmp_path / "flops_0.50.pth")
    described = {
        "type": "GroupFisherAlgorithm",
        "architecture": tiny(3),
        "mutator": config(),
        "init_cfg": {"type": "Pretrained", "checkpoint": str(tmp_path / "flops_0.50.pth")},
    }
    small = group_fisher_sub_model(described)
    assert type(small.conv1) is nn.Conv2d and small.conv2.out_channels < 8
    torch.testing.assert_close(small.eval()(images()), expected, atol=1e-5, rtol=0)

    subnet, static = sliced(algorithm)
    whole = tiny(5).eval()
    whole.load_state_dict(full_width(algorithm).state_dict(), strict=True)
    torch.testing.assert_close(load_fix_subnet(whole, subnet)(images()), expected, atol=1e-5, rtol=0)
    choices = {unit.name: unit.current_choice for unit in algorithm.mutator.mutable_units}
    parse = {"type": "ChannelAnalyzer", "demo_input": (1, 1, 8, 8)}
    deployed = group_fisher_deploy_sub_model(tiny(4), choices, parse_cfg=parse).eval()
    deployed.load_state_dict(static.state_dict(), strict=True)
    torch.testing.assert_close(deployed(images()), expected, atol=1e-5, rtol=0)


def test_divisible_widths_compute_the_same(fisher):
    algorithm = fisher(interval=1)
    run(algorithm, 5)
    algorithm.eval().settle()
    expected = algorithm(images())
    widen(algorithm.mutator, 4)
    small = sliced(algorithm)[1]
    assert small.conv1.out_channels == 4 and small.conv2.out_channels in (4, 8)
    torch.testing.assert_close(small(images()), expected, atol=1e-5, rtol=0)
    with pytest.raises(RecipeError, match="a divisor of at least 1, got 0"):
        widen(algorithm.mutator, 0)


def test_a_divisor_widens_the_deployed_model(tmp_path):
    parse = {"type": "ChannelAnalyzer", "demo_input": (1, 1, 8, 8)}
    small = group_fisher_deploy_sub_model(tiny(), {FIRST: 3, SECOND: 5}, divisor=4, parse_cfg=parse)
    assert (small.conv1.out_channels, small.conv2.out_channels) == (4, 8)
    with pytest.raises(ModelError, match="conv9"):
        group_fisher_deploy_sub_model(tiny(), {"conv9_(0, 4)_4": 3}, parse_cfg=parse)
    with pytest.raises(CheckpointError, match="expected init_cfg=dict\\(type='Pretrained'"):
        group_fisher_deploy_sub_model(tiny(), {FIRST: 3}, parse_cfg=parse, init_cfg={"type": "Kaiming"})


def test_what_does_not_fit_is_refused(fisher, mutator_cfg):
    with pytest.raises(RecipeError, match="an interval of at least 1, got 0"):
        fisher(interval=0)
    with pytest.raises(RecipeError, match="target_flop_ratio above 0 and up to 1, got 2"):
        fisher(target_flop_ratio=2)
    with pytest.raises(ModelError, match="expected a normalization_type of"):
        fisher({"normalization_type": "flop"})
