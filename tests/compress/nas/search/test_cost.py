from __future__ import annotations

import random
import time

import pytest
import torch
from torch import nn

from razordeploy.compress.nas.search.cost import SupernetCosts
from razordeploy.compress.nas.search.limits import Bounded, Limits
from razordeploy.compress.nas.search.space import SearchSpace
from razordeploy.compress.nas.supernets.digits import autoformer_digits, bignas_digits
from razordeploy.subnet.channel_graph import channel_graph
from razordeploy.subnet.dynamic_ops.attention import DynamicMultiheadAttention
from razordeploy.subnet.dynamic_ops.conv import DynamicConv2d
from razordeploy.subnet.dynamic_ops.linear import DynamicLinear
from razordeploy.subnet.estimate import ResourceCounter
from razordeploy.subnet.fix import export_fix_subnet
from razordeploy.subnet.mutables.channel import OneShotMutableChannel
from razordeploy.subnet.mutables.derived import DerivedMutable
from razordeploy.subnet.mutables.value import OneShotMutableValue
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.nas import NasMutator
from razordeploy.subnet.units.one_shot import OneShotMutableChannelUnit

from .nets import Supernet, follow

X = torch.zeros(1, 3, 8, 8)


def ofa_digits():
    return bignas_digits(conv_type="OFAConv2d", fine_grained=True)


def _prepared(model, mutator=None):
    mutator = mutator or NasMutator()
    mutator.prepare_from_supernet(model)
    return mutator, SearchSpace.of_mutator(mutator)


def _of_static(static, inputs):
    """The second implementation: counted on the captured graph of the exported model."""
    counted = ResourceCounter(channel_graph(static, inputs), static).count()
    return counted.macs, sum(parameter.numel() for parameter in static.parameters())


def test_the_table_gives_the_exported_models_costs():
    model = Supernet().eval()
    mutator, space = _prepared(model)
    costs = SupernetCosts(model, mutator, (X,))
    assert costs.check(space)
    rng = random.Random(0)
    before = costs.counted
    for _ in range(4):
        subnet = space.sample(rng)
        counted = costs.count(subnet)
        mutator.set_choices(subnet)
        static = export_fix_subnet(model, slice_weight=True)[1]
        assert counted == _of_static(static, (X,))
        assert costs(subnet) == {"macs": counted[0] / 1e6, "flops": 2 * counted[0] / 1e6, "params": counted[1] / 1e6}
    assert costs.counted <= before + 5


def test_hundreds_of_candidates_a_second():
    model = Supernet().eval()
    mutator, space = _prepared(model)
    costs = SupernetCosts(model, mutator, (X,))
    bounded = Bounded(space, costs, Limits({"macs": (0.0, 0.05)}))
    rng = random.Random(0)
    for _ in range(60):
        bounded.sample(rng)
    bounded.checked, start = 0, time.process_time()
    while bounded.checked < 500:
        bounded.sample(rng)
    assert bounded.checked / (time.process_time() - start) >= 100


class Tokens(nn.Module):
    def __init__(self, relative_position):
        super().__init__()
        self.heads = OneShotMutableValue([2, 3, 4])
        self.embed = OneShotMutableChannel(16, [8, 16])
        self.project = follow(DynamicLinear(8, 16), outputs=self.embed)
        self.attention = DynamicMultiheadAttention(16, 4, head_dims=8, relative_position=relative_position)
        self.attention.register_mutable_attr("embed_dims", self.embed)
        self.attention.register_mutable_attr("num_heads", self.heads)
        # The channels of the kept heads, which come first.
        per_head = torch.ones(8, dtype=torch.bool)
        mask = DerivedMutable(
            lambda: self.heads.current_choice * 8,
            lambda: (torch.arange(4) < self.heads.current_choice).repeat_interleave(8) & per_head.repeat(4),
            [self.heads],
        )
        self.attention.register_mutable_attr("q_embed_dims", mask)

    def forward(self, x):
        return self.attention(self.project(x))


@pytest.mark.parametrize("relative_position", [False, True])
def test_attention(relative_position):
    model = Tokens(relative_position).eval()
    mutator, space = _prepared(model)
    # A class token and 4 x 4 patches.
    costs = SupernetCosts(model, mutator, (torch.zeros(1, 17, 8),))
    assert costs.check(space)
    for heads in (2, 3, 4):
        for width in (8, 16):
            counted = costs.count({"heads": heads, "embed": width})
            inner, tokens = heads * 8, 17
            products = 2 * tokens * tokens * inner * (2 if relative_position else 1)
            assert counted[0] == tokens * (8 * width + 4 * width * inner) + products
            mutator.set_choices({"heads": heads, "embed": width})
            static = export_fix_subnet(model, slice_weight=True)[1]
            assert counted[1] == sum(parameter.numel() for parameter in static.parameters())


class Ungoverned(nn.Module):
    """The width of a plain product depends on a choice that the module itself knows nothing of."""

    def __init__(self):
        super().__init__()
        self.width = OneShotMutableChannel(8, [2, 4, 8])
        self.stem = follow(DynamicConv2d(3, 8, 1), outputs=self.width)
        self.down = follow(DynamicConv2d(8, 5, 1), self.width)
        self.gram = Gram()

    def forward(self, x):
        x = self.stem(x)
        return self.gram(x.flatten(2)), self.down(x)


class Gram(nn.Module):
    def forward(self, x):
        return x @ x.transpose(1, 2)


def test_a_supernet_that_is_no_sum_over_layers_is_counted_in_full():
    model = Ungoverned().eval()
    mutator, space = _prepared(model)
    costs = SupernetCosts(model, mutator, (X,))
    assert not costs.check(space)
    for width in (2, 4, 8):
        counted = costs.count(dict.fromkeys(space.groups, width))
        assert counted[0] == 64 * 3 * width + 64 * width * width + 64 * width * 5


@pytest.mark.parametrize("forward", ["slice", "mask"])
def test_channel_units(forward):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(6 * 36, 4)
    ).eval()
    unit = {"type": "OneShotMutableChannelUnit", "default_args": {"candidate_choices": [0.5, 1.0]}}
    mutator = ChannelMutator(unit, {"type": "ChannelAnalyzer", "demo_input": (1, 3, 8, 8), "forward": forward})
    mutator, space = _prepared(model, mutator)
    assert len(space.groups) == 2
    assert all(isinstance(u, OneShotMutableChannelUnit) for u in mutator.mutable_units)
    costs = SupernetCosts(model, mutator, (X,))
    assert costs.check(space)
    rng = random.Random(0)
    for _ in range(4):
        subnet = space.sample(rng)
        counted = costs.count(subnet)
        mutator.set_choices(subnet)
        static = export_fix_subnet(model, mutator=mutator, slice_weight=True, example_inputs=X)[1]
        assert counted == _of_static(static, (X,))


@pytest.mark.parametrize("space_of", [ofa_digits, autoformer_digits])
def test_the_first_candidates_are_looked_up_like_the_last(space_of):
    model = space_of().eval()
    mutator, space = _prepared(model)
    costs = SupernetCosts(model, mutator, (torch.zeros(1, 1, 8, 8),))
    assert costs.check(space)

    def filled():
        tables = [(len(layer.sizes), len(layer.work), len(layer.places), len(layer.there)) for layer in costs.layers]
        return tables, costs.counted

    before, rng = filled(), random.Random(3)
    for _ in range(50):
        costs(space.sample(rng))
    assert filled() == before
