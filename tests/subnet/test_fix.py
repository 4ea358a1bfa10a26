"""Subnet files of channel mutators: export, load, refuse."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import yaml
from torch import nn

from razordeploy.capture.checkpoint import load_into
from razordeploy.errors import CheckpointError, ModelError
from razordeploy.subnet.files import read_mapping, write_mapping
from razordeploy.subnet.fix import export_fix_subnet, load_fix_subnet
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.pruners import DCFFChannelMutator
from razordeploy.subnet.sub_model import sub_model

from .nets import ConvNet, Tokens, randomise

CHOICES = {"stem_(0, 8)_8": 6, "expand_(0, 12)_12": 5, "branch_(0, 6)_6": 3, "hidden_(0, 9)_9": 7}
SHAPE = [2, 3, 8, 8]


def _file(**changes):
    """A file of the form of mmrazor's published DMCP and DCFF subnets: no channels, a traced model."""
    units = {
        name: {
            "init_args": {
                "num_channels": int(name.rpartition("_")[2]),
                "choice_mode": "number",
                "divisor": 1,
                "min_value": 1,
                "min_ratio": 0.5,
            },
            "choice": choice,
        }
        for name, choice in CHOICES.items()
    }
    return {
        "type": "DMCPChannelMutator",
        "channel_unit_cfg": {"type": "DMCPChannelUnit", "default_args": {"choice_mode": "number"}, "units": units},
        "parse_cfg": {"type": "ChannelAnalyzer", "demo_input": SHAPE, "tracer_type": "BackwardTracer"},
        **changes,
    }


def _width(model):
    return model.stem.out_channels, model.expand.out_channels, model.branch.out_channels, model.hidden.out_features


def test_a_file_of_the_predecessor_loads(tmp_path):
    path = tmp_path / "subnet.json"
    path.write_text(json.dumps(_file()))
    model = randomise(ConvNet())
    plain = copy.deepcopy(model)
    assert load_fix_subnet(model, str(path)) is model
    assert type(model) is ConvNet
    assert _width(model) == (6, 5, 3, 7)
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    # The first channels of every unit.
    assert torch.equal(model.expand.weight, plain.expand.weight[:5, :6])
    assert torch.equal(model.last.weight, plain.last.weight[:, [*range(6), 8, 9, 10]])


def test_plain_choices_and_units_load():
    for content in (
        {"stem_(0, 8)_8": 6, "expand_(0, 12)_12": 0.45, "branch_(0, 6)_6": 3, "hidden_(0, 9)_9": 7},
        _file()["channel_unit_cfg"]["units"],
    ):
        model = load_fix_subnet(ConvNet(), content, example_inputs=torch.rand(SHAPE))
        assert _width(model) == (6, 5, 3, 7)


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_written_and_read_again(tmp_path, config, suffix):
    model = randomise(ConvNet())
    mutator = ChannelMutator(**config())
    mutator.prepare_from_supernet(model)
    mutator.set_choices(CHOICES)
    subnet, static = export_fix_subnet(model, slice_weight=True, export_channel=True, mutator=mutator)
    path = tmp_path / f"fix_subnet.{suffix}"
    write_mapping(path, subnet)
    assert read_mapping(path) == json.loads(json.dumps(subnet))
    made = sub_model(ConvNet(), path).eval()
    made.load_state_dict(static.state_dict(), strict=True)
    x = torch.randn(SHAPE)
    assert torch.equal(made(x), static(x))


@pytest.mark.parametrize("training", [True, False])
def test_modes_and_types_stay(config, training):
    model = randomise(ConvNet()).double().train(training)
    model.bn2.eval()
    model.expand.weight.requires_grad_(False)
    mutator = ChannelMutator(**config())
    mutator.prepare_from_supernet(model)
    mutator.set_choices(CHOICES)
    _, static = export_fix_subnet(model, slice_weight=True, mutator=mutator)
    assert {name: m.training for name, m in static.named_modules()} == {
        name: m.training for name, m in ConvNet().train(training).named_modules() if name != "bn2"
    } | {"bn2": False}
    assert {p.dtype for p in static.parameters()} == {torch.float64}
    assert not static.expand.weight.requires_grad
    assert static.stem.weight.requires_grad
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in static.parameters()}
    assert not shared


def test_the_mode_is_told_by_what_there_is(config):
    model = randomise(ConvNet())
    mutator = ChannelMutator(**config())
    mutator.prepare_from_supernet(model)
    algorithm = nn.Module()
    algorithm.architecture, algorithm.mutator = model, mutator
    subnet, static = export_fix_subnet(algorithm)
    assert static is None
    assert subnet["type"] == "ChannelMutator"
    # mmrazor gives {} here.
    with pytest.raises(ModelError, match="use export_subnet_mode='mutator'"):
        export_fix_subnet(algorithm, export_subnet_mode="mutable")
    with pytest.raises(ModelError, match="no channel mutator to export"):
        export_fix_subnet(model, export_subnet_mode="mutator")
    with pytest.raises(ModelError, match="expected export_subnet_mode"):
        export_fix_subnet(algorithm, export_subnet_mode="unit")


@pytest.fixture(scope="module")
def tokens():
    """A transformer block that runs masked, prepared once."""
    torch.manual_seed(0)
    model = randomise(Tokens())
    mutator = ChannelMutator("L1MutableChannelUnit", {"type": "FxTracer", "demo_input": SHAPE})
    mutator.prepare_from_supernet(model)
    heads = next(unit.name for unit in mutator.mutable_units if unit.name.startswith("qkv"))
    mutator.set_choices({"embed_(0, 16)_16": 12, "up_(0, 32)_32": 20, heads: 3})
    return model, mutator


def test_a_masked_model_is_sliced_by_its_graph(tokens):
    model, mutator = tokens
    x = torch.randn(3, 3, 8, 8)
    subnet, static = export_fix_subnet(model, slice_weight=True, mutator=mutator, export_channel=True)
    torch.testing.assert_close(static(x), model(x), atol=1e-5, rtol=0)
    assert static.state_dict()["token"].shape == (1, 1, 12)
    assert static.state_dict()["down.weight"].shape == (12, 20)
    plain = randomise(Tokens())
    plain.load_state_dict(model.state_dict(), strict=True)
    again = load_fix_subnet(plain, subnet)
    assert again is plain
    torch.testing.assert_close(again(x), static(x), atol=1e-5, rtol=0)


def test_a_subnet_of_another_model_is_refused(config):
    wrong = _file()
    wrong["channel_unit_cfg"]["units"]["steam_(0, 8)_8"] = {"choice": 4}
    narrow = _file()
    narrow["channel_unit_cfg"]["units"]["stem_(0, 8)_8"]["init_args"]["num_channels"] = 16
    for content, message in (
        (wrong, "'steam_.*another model, or the model has changed since; did you mean 'stem_"),
        (narrow, "16 channels in the config and 8 in the model: the config is of another width"),
        (_file(type="DMCPMutator"), "unknown mutator 'DMCPMutator'; did you mean"),
        (_file(channel_unit_config={}), "unexpected keyword argument 'channel_unit_config'"),
        ({"width": {"chosen": 3}}, "chooses 'width', which ConvNet has not.*ConvNet has no mutables"),
        ({}, "the subnet is empty"),
    ):
        model = ConvNet()
        with pytest.raises(ModelError, match=message):
            load_fix_subnet(model, content)
        assert _width(model) == (8, 12, 6, 9)


@pytest.mark.parametrize(
    ("choice", "message"), [(0, "from 1 to 8"), (9, "from 1 to 8"), (1.5, "ratio"), ("6", "got '6'")]
)
def test_choices_that_are_none_are_refused(config, choice, message):
    given = config()["channel_unit_cfg"]
    given["units"]["stem_(0, 8)_8"]["choice"] = choice
    with pytest.raises(ModelError, match=message):
        load_fix_subnet(ConvNet(), {"channel_unit_cfg": given, "parse_cfg": {"type": "Config"}})


def test_a_model_that_has_changed_since_is_refused(config, template):
    class Wider(ConvNet):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 7, 3, padding=1, bias=False)

    with pytest.raises(ModelError, match=r"'stem' has 7 channels, not \(0, 8\): .*the model has changed since"):
        load_fix_subnet(Wider(), template)


def test_a_checkpoint_of_another_width_is_refused(tmp_path, config):
    torch.save(ConvNet().state_dict(), tmp_path / "full.pth")
    given = config()
    given["channel_unit_cfg"]["units"]["hidden_(0, 9)_9"]["choice"] = 7
    model = load_fix_subnet(ConvNet(), given)
    with pytest.raises(CheckpointError, match="hidden.weight 9x40, the model has 7x40"):
        load_into(model, tmp_path / "full.pth")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "cannot be read as JSON or YAML"),
        ("a.yaml", "a: [", "cannot be read as JSON or YAML"),
        ("a.yaml", "- 1", "expected a mapping, got list"),
        ("a.json", None, "no such file"),
    ],
)
def test_unreadable_files_are_refused(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=message):
        load_fix_subnet(ConvNet(), tmp_path / name)


def test_fused_filters_are_exported_fused(config):
    model = randomise(ConvNet())
    mutator = DCFFChannelMutator(**config(None, {"choice_mode": "ratio"}))
    mutator.prepare_from_supernet(model)
    mutator.set_choices({name: 0.5 for name in mutator.choice_template})
    mutator.calc_information(0.7)
    subnet, static = export_fix_subnet(model, slice_weight=True, mutator=mutator)
    x = torch.randn(SHAPE)
    torch.testing.assert_close(static(x), model(x), atol=1e-5, rtol=0)
    # The sliced weights are loaded into the structure of the file.
    shape = sub_model(ConvNet(), yaml.safe_load(yaml.safe_dump(subnet)), example_inputs=x).eval()
    shape.load_state_dict(static.state_dict(), strict=True)
    torch.testing.assert_close(shape(x), static(x))
