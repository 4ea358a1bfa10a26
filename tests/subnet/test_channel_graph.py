"""Names, order, size and cost of what ``channel_units`` returns."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

import razordeploy as rd
from razordeploy.errors import ModelError
from razordeploy.models.cifar import resnet20
from razordeploy.subnet.channel_graph import channel_graph
from razordeploy.subnet.tracer.axes import leaves


class Dense(nn.Module):
    """Many concatenations of all that went before."""

    def __init__(self, layers, growth):
        super().__init__()
        self.stem = nn.Conv2d(3, growth, 1)
        self.layers = nn.ModuleList(nn.Conv2d(growth * (i + 1), growth, 1) for i in range(layers))
        self.fc = nn.Linear(growth * (layers + 1), 4)

    def forward(self, x):
        found = [self.stem(x)]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        return self.fc(torch.cat(found, 1).mean((2, 3)))


def test_names_say_module_range_and_channels_in_the_order_of_execution():
    units = rd.channel_units(resnet20(), (torch.randn(2, 3, 32, 32),))
    assert list(units)[:3] == ["conv1_(0, 16)_16", "layer1.0.conv1_(0, 16)_16", "layer1.1.conv1_(0, 16)_16"]
    assert all(unit.prunable and unit.name == name for name, unit in units.items())


def test_a_stream_lists_all_that_produces_and_consumes_it():
    unit = rd.channel_units(resnet20(), torch.randn(2, 3, 32, 32))["layer1.0.conv1_(0, 16)_16"]
    assert {(m.tensor, m.dim) for m in unit.outputs()} == {
        ("layer1.0.conv1.weight", 0),
        *((f"layer1.0.bn1.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var")),
    }
    assert {(m.module, m.dim) for m in unit.inputs()} == {("layer1.0.conv2", 1)}


def test_names_do_not_depend_on_batch_or_mode():
    model = resnet20()
    names = list(rd.channel_units(model.train(), torch.randn(1, 3, 32, 32)))
    assert names == list(rd.channel_units(model.eval(), torch.randn(4, 3, 32, 32)))


def test_masks_and_positions_agree():
    unit = rd.channel_units(_Heads(), torch.randn(2, 5, 12))["qkv_(0, 36)_3"]
    kept = torch.tensor([True, False, True])
    for member in unit.members:
        gone = [p for span in member.spans for p in span.positions(1)]
        assert (~member.mask(kept)).nonzero()[:, 0].tolist() == sorted(gone)
    rows = next(m for m in unit.members if m.tensor == "qkv.weight")
    assert sorted(r for span in rows.spans for r in span.ranges()) == [(0, 12), (12, 24), (24, 36)]


class _Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 4)

    def forward(self, x):
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(((q @ k.transpose(2, 3)).softmax(-1) @ v).transpose(1, 2).flatten(2))


def test_work_follows_operators_not_channels():
    """Axes are ranges: a network of sixteen times the width has as many."""
    counts = []
    for growth in (4, 64):
        graph = channel_graph(Dense(12, growth), torch.randn(1, 3, 4, 4))
        counts.append(sum(1 for axis in graph.trace.all_axes() for _ in leaves(axis)))
    assert counts[0] == counts[1]


def test_a_deep_dense_network_is_traced_in_a_moment():
    model = Dense(60, 8)
    start = time.process_time()
    graph = channel_graph(model, torch.randn(1, 3, 4, 4))
    seconds = time.process_time() - start
    assert len(graph.prunable) == 61 and seconds < 5, f"{seconds:.1f} CPU s"


def test_a_model_that_cannot_be_captured_is_refused():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match="cannot capture Branching"):
        rd.channel_units(Branching(), torch.randn(2, 3))


def test_units_cannot_be_changed():
    unit = next(iter(rd.channel_units(_Heads(), torch.randn(2, 5, 12)).values()))
    with pytest.raises(AttributeError):
        unit.channels = 3


def test_units_list_what_they_can_be_cut_to():
    units = rd.channel_units(resnet20(), torch.randn(2, 3, 32, 32))
    assert units["conv1_(0, 16)_16"].choices == tuple(range(1, 17))
    for width in (1, 7):
        small = rd.prune(resnet20(), example_inputs=torch.randn(2, 3, 32, 32), choice={"conv1_(0, 16)_16": width})
        assert small.conv1.out_channels == width


def test_what_is_no_module_is_refused():
    with pytest.raises(ModelError, match="expected an nn.Module, got NoneType"):
        rd.channel_units(None, torch.randn(2, 3, 32, 32))
