from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from razordeploy.errors import ModelError
from razordeploy.subnet.fix import export_fix_subnet
from razordeploy.subnet.mutators.dmcp import DMCPChannelMutator
from razordeploy.subnet.mutators.pruners import (
    DCFFChannelMutator,
    OneShotChannelMutator,
    SlimmableChannelMutator,
)

from ..nets import ConvNet, randomise


def test_one_shot_units_choose_from_a_list(config):
    mutator = OneShotChannelMutator(**config(None, {"candidate_choices": [0.25, 0.5, 1.0], "divisor": 2}))
    model = randomise(ConvNet())
    mutator.prepare_from_supernet(model)
    assert mutator.unit("expand_(0, 12)_12").choices == [4 / 12, 6 / 12, 1.0]
    seen = {mutator.sample_choices()["expand_(0, 12)_12"] for _ in range(60)}
    assert seen == {4 / 12, 6 / 12, 1.0}
    mutator.set_min_choices()
    assert model(torch.randn(1, 3, 8, 8)).shape == (1, 4)
    with pytest.raises(ModelError, match="expected one of"):
        mutator.set_choices({"expand_(0, 12)_12": 10})
    with pytest.raises(ModelError, match="unexpected keyword argument 'num_blocks'"):
        # mmrazor's own default arguments, which its unit does not take.
        OneShotChannelMutator(**config(None, {"num_blocks": 8})).prepare_from_supernet(ConvNet())


WIDTHS = {"stem": [4, 6, 8], "expand": [4, 4, 12], "branch": [2, 6, 6], "last": [5, 5, 10], "hidden": [3, 6, 9]}


@pytest.fixture
def slimmable(config):
    extra = {name: {"candidate_choices": widths} for name, widths in {**WIDTHS, "out": [4, 4, 4]}.items()}
    mutator = SlimmableChannelMutator(**config(None, None, **extra))
    model = randomise(ConvNet())
    mutator.prepare_from_supernet(model)
    return model, mutator


def test_each_switch_is_a_subnet(slimmable):
    model, mutator = slimmable
    assert len(mutator.subnets) == 3
    for index in range(3):
        mutator.switch(index)
        names = {name.partition("_")[0]: number for name, number in mutator.current_choices.items()}
        assert names == {name: widths[index] for name, widths in WIDTHS.items()}
        assert model(torch.randn(2, 3, 8, 8)).shape == (2, 4)
    with pytest.raises(ModelError, match="from 0 to 2"):
        mutator.switch(3)


def test_a_norm_after_a_concatenation_has_a_width_for_each_subnet(slimmable):
    model, _ = slimmable
    # 4 + 2, 6 + 6, 8 + 6 channels of stem and branch.
    assert list(model.bn4.candidate_bn) == ["6", "12"]
    assert list(model.bn1.candidate_bn) == ["4", "6"]


def test_switches_of_one_width_have_a_norm_each(slimmable):
    # mmrazor keys norms by width alone: bn2 has 4 channels in two subnets, behind stems of 4 and of 6.
    model, mutator = slimmable
    assert list(model.bn2.candidate_bn) == ["4", "4_1"]
    model.train()
    x = torch.randn(8, 3, 8, 8)
    means = []
    for index in range(2):
        mutator.switch(index)
        for _ in range(50):
            model(x)
        seen = []
        handle = model.bn2.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        model(x)
        handle.remove()
        norm = model.bn2._current()
        means.append(norm.running_mean.clone())
        torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)), atol=1e-2, rtol=1e-2)
    assert (means[0] - means[1]).abs().max() > 1e-2
    # Choices that are those of a subnet run with its norms.
    mutator.set_choices(mutator.subnets[1])
    assert model.bn2.switch == 1
    mutator.set_choices({"hidden_(0, 9)_9": 9})
    assert model.bn2.switch is None


def test_slimmable_checkpoints_shrink(slimmable):
    model, mutator = slimmable
    model.train()
    for index in range(3):
        mutator.switch(index)
        model(torch.randn(8, 3, 8, 8) * (index + 1))
    model.eval()
    sizes = []
    x = torch.randn(2, 3, 8, 8)
    for index in range(3):
        mutator.switch(index)
        _, static = export_fix_subnet(model, slice_weight=True, mutator=mutator)
        torch.testing.assert_close(static(x), model(x), atol=1e-5, rtol=0)
        assert not any("candidate" in key for key in static.state_dict())
        sizes.append(sum(value.numel() for value in static.state_dict().values()))
    assert sizes == sorted(set(sizes))
    assert sizes[0] < 0.5 * sizes[2]


def test_subnets_of_different_number_are_refused(config):
    extra = {name: {"candidate_choices": widths} for name, widths in WIDTHS.items()}
    extra["stem"] = {"candidate_choices": [4, 8]}
    extra["out"] = {"candidate_choices": [4, 4, 4]}
    with pytest.raises(ModelError, match=r"'stem_\(0, 8\)_8' has 2 and"):
        SlimmableChannelMutator(**config(None, None, **extra)).prepare_from_supernet(ConvNet())


def test_fusion_follows_the_weights_and_the_width(config):
    mutator = DCFFChannelMutator(**config(None, {"choice_mode": "ratio"}))
    model = randomise(ConvNet())
    mutator.prepare_from_supernet(model)
    mutator.set_choices({name: 0.5 for name in mutator.choice_template})
    mutator.calc_information(1.0)
    assert model.expand.fusion.shape == (6, 12)
    # The last layer is not fused: its channels are the model's output.
    assert model.out.weight.shape == (4, 9)
    mutator.calc_information(1e-4)
    rows = model.expand.fusion.argmax(1)
    torch.testing.assert_close(model.expand.fusion, nn.functional.one_hot(rows, 12).float(), atol=1e-6, rtol=0)
    mutator.set_choices({"expand_(0, 12)_12": 0.25})
    with pytest.raises(ModelError, match="calc_information"):
        model(torch.randn(1, 3, 8, 8))
    mutator.set_max_choices()
    mutator.calc_information(1.0)
    assert model.expand.fusion is None


@pytest.fixture
def dmcp(config):
    mutator = DMCPChannelMutator(**config(), pruning_cfg=(0.25, 1.0, 0.25))
    model = randomise(ConvNet())
    mutator.prepare_from_supernet(model)
    return model, mutator


def test_widths_of_each_mode(dmcp):
    model, mutator = dmcp
    name = "expand_(0, 12)_12"
    assert mutator.sample_subnet("max")[name] == 12
    assert mutator.sample_subnet("min")[name] == 3
    assert {mutator.sample_subnet("random")[name] for _ in range(60)} == {3, 6, 9, 12}
    # Zero parameters keep every group for sure.
    assert mutator.sample_subnet("direct")[name] == mutator.sample_subnet("expected")[name] == 12
    mutator.arch_param_of(name).data.copy_(torch.tensor([0.0, 50.0, 0.0]))
    assert mutator.sample_subnet("direct")[name] == mutator.sample_subnet("expected")[name] == 6
    assert mutator.current_choices[name] == 6
    with pytest.raises(ModelError, match="expected a mode"):
        mutator.sample_subnet("mean")


def test_architecture_parameters_learn_through_the_norms(dmcp):
    model, mutator = dmcp
    x = torch.randn(4, 3, 8, 8)
    plain = model(x)
    mutator.sample_subnet("max", arch_train=True)
    torch.testing.assert_close(model(x), plain)
    for parameter in mutator.arch_params.values():
        parameter.data.fill_(0.3)
    weighted = model(x)
    assert not torch.allclose(weighted, plain, atol=1e-3)
    weighted.square().sum().backward()
    learned = [name for name in mutator.search_groups if mutator.arch_param_of(name).grad is not None]
    # Units with a batch norm behind their convolution; the others learn from the FLOPs alone.
    assert learned == ["stem_(0, 8)_8", "expand_(0, 12)_12"]
    assert not any("arch" in name for name, _ in model.named_parameters())
    mutator.sample_subnet("max", arch_train=False)
    torch.testing.assert_close(model(x), plain)


def test_expected_widths_are_differentiable(dmcp):
    _, mutator = dmcp
    for parameter in mutator.arch_params.values():
        parameter.data.fill_(0.3)
    expected = mutator.expected_channels()
    keep = torch.tensor(-0.3).exp()
    torch.testing.assert_close(expected["expand_(0, 12)_12"], 3 + 3 * (keep + keep**2 + keep**3))
    sum(expected.values()).backward()
    assert all(parameter.grad.lt(0).all() for parameter in mutator.arch_params.values())


def test_dmcp_template_keeps_its_rates(dmcp):
    _, mutator = dmcp
    template = mutator.config_template(with_channels=True)
    assert template["pruning_cfg"] == [0.25, 1.0, 0.25]
    again = DMCPChannelMutator(**{key: value for key, value in copy.deepcopy(template).items() if key != "type"})
    again.prepare_from_supernet(ConvNet())
    assert again.markov == mutator.markov
