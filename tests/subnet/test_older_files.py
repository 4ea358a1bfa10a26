"""Subnet files of mmrazor 0.x: a width for every layer, operations under ``modules``."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from razordeploy.errors import ModelError
from razordeploy.subnet.fix import load_fix_subnet
from razordeploy.subnet.older_files import modernised

from .nets import ConvNet, randomise

X = torch.rand(2, 3, 8, 8)


class Chain(nn.Module):
    """Two convolutions with batch norm and a head, named as in those files."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.conv2 = nn.Sequential(nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6))
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.conv2(self.conv1(x)).mean((2, 3)))


def _layer(out, raw_out, inputs=0, raw_in=0):
    norm = {"out_channels": out, "raw_out_channels": raw_out}
    return norm | ({"in_channels": inputs, "raw_in_channels": raw_in} if raw_in else {})


FILE = {
    "conv1.0": _layer(5, 8, 3, 3),
    "conv1.1": _layer(5, 8),
    "conv2.0": _layer(2, 6, 5, 8),
    "conv2.1": _layer(2, 6),
    "fc": _layer(4, 4, 2, 6),
}


def test_widths_of_layers_keep_the_first_channels():
    model = randomise(Chain())
    before = copy.deepcopy(model)
    load_fix_subnet(model, FILE, example_inputs=X)
    assert torch.equal(model.conv1[0].weight, before.conv1[0].weight[:5])
    assert torch.equal(model.conv2[0].weight, before.conv2[0].weight[:2, :5])
    assert torch.equal(model.fc.weight, before.fc.weight[:, :2])
    assert model(X).shape == (2, 4)


def test_a_file_of_full_widths_changes_nothing():
    full = {path: {**entry, "out_channels": entry["raw_out_channels"]} for path, entry in FILE.items()}
    model = load_fix_subnet(Chain(), full, example_inputs=X)
    assert model.conv1[0].out_channels == 8


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"conv1.0": _layer(5, 12, 3, 3), "conv1.1": _layer(5, 12)}, "of another model or of another width"),
        ({"conv9": _layer(1, 2)}, "narrows 'conv9', which Chain has not"),
        ({"conv1.1": _layer(4, 8)}, "different widths to layers"),
        ({"conv1.0": _layer(0, 8, 3, 3), "conv1.1": _layer(0, 8)}, "0 of 8 channels"),
    ],
)
def test_of_another_model(changes, text):
    with pytest.raises(ModelError, match=text):
        load_fix_subnet(Chain(), {**FILE, **changes}, example_inputs=X)


def test_modules_become_choices():
    old = {"modules": {"backbone.layers.0.0": "shuffle_7x7", "normal_n2": ["a", "b"]}, "channels": None}
    assert modernised(old) == {"backbone.layers.0.0": {"chosen": "shuffle_7x7"}, "normal_n2": {"chosen": ["a", "b"]}}
    assert modernised(FILE) == FILE
    with pytest.raises(ModelError, match="both 'modules' and 'channels'"):
        modernised({**old, "channels": {"a": 1}})


def test_widths_by_unit_keep_the_largest_filters():
    model = randomise(ConvNet())
    before = copy.deepcopy(model)
    name = next(name for name in ("branch_(0, 6)_6",))
    load_fix_subnet(model, {name: 3}, example_inputs=X)
    norms = before.branch.weight.abs().flatten(1).sum(1)
    assert torch.equal(model.branch.weight.abs().flatten(1).sum(1).sort().values, norms.topk(3).values.sort().values)


def test_a_unit_that_is_not_there():
    with pytest.raises(ModelError, match=r"of another width, or the model has changed since; did you mean"):
        load_fix_subnet(ConvNet(), {"branch_(0, 7)_7": 3}, example_inputs=X)
