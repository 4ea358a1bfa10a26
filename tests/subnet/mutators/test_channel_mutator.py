"""Tracing, templates and choices of channel mutators."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import yaml

from razordeploy.errors import ModelError
from razordeploy.registry import MODELS, TASK_UTILS
from razordeploy.subnet.mutators import channel as channel_module
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.forward import set_masked

from ..nets import ConvNet, Shuffle, Tokens, randomise

TRACED = {"type": "ChannelAnalyzer", "demo_input": (2, 3, 8, 8)}


def _names(mutator):
    return [unit.name for unit in mutator.mutable_units]


def test_traced_units_and_their_names(template):
    units = template["channel_unit_cfg"]["units"]
    prunable = [name for name, entry in units.items() if "reason" not in entry]
    assert prunable == [
        "stem_(0, 8)_8",
        "expand_(0, 12)_12",
        "branch_(0, 6)_6",
        "last_(0, 10)_10",
        "hidden_(0, 9)_9",
    ]
    assert "output" in units["out_(0, 4)_4"]["reason"]
    stem = units["stem_(0, 8)_8"]["channels"]
    assert [c["name"] for c in stem["output_related"]] == ["stem", "bn1", "project", "bn3", "bn4"]
    assert [c["name"] for c in stem["input_related"]] == ["expand", "branch", "last"]
    assert stem["input_related"][2] == {"name": "last", "start": 0, "end": 8, "is_output_channel": False}
    flattened = units["last_(0, 10)_10"]["channels"]["input_related"]
    assert flattened == [{"name": "hidden", "start": 0, "end": 40, "is_output_channel": False}]
    assert template["parse_cfg"] == {"type": "ChannelAnalyzer", "demo_input": [2, 3, 8, 8]}


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
def test_a_mutator_rebuilds_itself_without_tracing(template, dump, monkeypatch):
    def no_tracing(*_, **__):
        raise AssertionError("traced")

    monkeypatch.setattr(channel_module, "channel_graph", no_tracing)
    read = yaml.safe_load(dump(template))
    read["channel_unit_cfg"]["units"]["expand_(0, 12)_12"]["choice"] = 5
    mutator = MODELS.build({**read, "type": "mmrazor.ChannelMutator"})
    model = randomise(ConvNet())
    mutator.prepare_from_supernet(model)
    again = mutator.config_template(with_unit_init_args=True, with_channels=True)
    assert again == read
    assert mutator.current_choices["expand_(0, 12)_12"] == 5
    assert model.expand(torch.randn(1, 8, 4, 4)).shape[1] == 5


def test_a_template_without_channels_is_traced_again(template):
    short = copy.deepcopy(template)
    for entry in short["channel_unit_cfg"]["units"].values():
        del entry["channels"]
    short["channel_unit_cfg"]["units"]["hidden_(0, 9)_9"]["choice"] = 3
    short["channel_unit_cfg"]["units"]["last_(0, 10)_10"]["init_args"] |= {"divisor": 4, "choice_mode": "ratio"}
    short["channel_unit_cfg"]["units"]["last_(0, 10)_10"]["choice"] = 0.4
    # A unit may go by another of its layers.
    short["channel_unit_cfg"]["units"]["project_(0, 8)_8"] = short["channel_unit_cfg"]["units"].pop("stem_(0, 8)_8")
    short.pop("type")
    short["parse_cfg"]["tracer_type"] = "FxTracer"
    mutator = ChannelMutator(**short)
    mutator.prepare_from_supernet(ConvNet())
    assert mutator.current_choices == {
        "project_(0, 8)_8": 8,
        "expand_(0, 12)_12": 12,
        "branch_(0, 6)_6": 6,
        "last_(0, 10)_10": 0.4,
        "hidden_(0, 9)_9": 3,
    }
    assert mutator.unit("stem_(0, 8)_8") is mutator.unit("project_(0, 8)_8")


def test_the_analyzer_leaves_the_model_alone(template):
    model = ConvNet()
    found = TASK_UTILS.build({"type": "mmrazor.ChannelAnalyzer", "demo_input": (2, 3, 8, 8)}).analyze(model)
    units = template["channel_unit_cfg"]["units"]
    assert found.keys() == units.keys()
    for name, unit in found.items():
        assert unit["channels"] == units[name]["channels"]
    assert [type(module) for module in model.modules()] == [type(module) for module in ConvNet().modules()]


def test_only_mutable_units(template, config):
    mutator = ChannelMutator(**config())
    mutator.prepare_from_supernet(ConvNet())
    short = mutator.config_template(only_mutable_units=True)
    assert list(short["channel_unit_cfg"]["units"]) == _names(mutator)
    assert short["channel_unit_cfg"]["units"]["stem_(0, 8)_8"] == {"choice": 8}
    assert len(mutator.all_units) == len(_names(mutator)) + 1


def test_a_full_model_computes_what_it_did(config):
    model = randomise(ConvNet())
    x = torch.randn(2, 3, 8, 8)
    before, keys = model(x), list(model.state_dict())
    mutator = ChannelMutator(**config())
    mutator.prepare_from_supernet(model)
    assert torch.equal(model(x), before)
    assert list(model.state_dict()) == keys
    model.load_state_dict(ConvNet().state_dict(), strict=True)


def test_choices_are_sampled_and_set(config):
    model = randomise(ConvNet())
    mutator = ChannelMutator(**config())
    mutator.prepare_from_supernet(model)
    assert mutator.sample_choices("max") == {unit.name: unit.num_channels for unit in mutator.mutable_units}
    assert set(mutator.sample_choices("min").values()) == {1}
    for _ in range(10):
        choices = mutator.sample_choices()
        mutator.set_choices(choices)
        assert mutator.current_choices == mutator.choice_template == choices
        assert model(torch.randn(2, 3, 8, 8)).shape == (2, 4)
    mutator.set_max_choices()
    assert mutator.current_choices == mutator.max_choices
    mutator.set_min_choices()
    assert mutator.current_choices == mutator.min_choices
    with pytest.raises(ModelError, match="random or max or min"):
        mutator.sample_choices("maximum")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"stem_(0, 8)_8": 0}, "from 1 to 8, got 0"),
        ({"stem_(0, 8)_8": 9}, "from 1 to 8, got 9"),
        ({"stem_(0, 8)_8": 0.0}, r"ratio in \(0, 1\], got 0.0"),
        ({"stem_(0, 8)_8": True}, "got True"),
        ({"expand_(0, 12)_12": 6}, "multiple of 4 of at least 4.*take 4 or 8"),
        ({"steam_(0, 8)_8": 4}, "no search group is called.*did you mean 'stem_"),
        ({"out_(0, 4)_4": 2}, "has to keep its 4 channels"),
    ],
)
def test_invalid_choices_are_refused_and_change_nothing(config, choices, message):
    mutator = ChannelMutator(**config(expand={"divisor": 4, "min_value": 4}))
    mutator.prepare_from_supernet(ConvNet())
    mutator.set_choices({"last_(0, 10)_10": 7})
    before = mutator.current_choices
    with pytest.raises(ModelError, match=message):
        mutator.set_choices({"branch_(0, 6)_6": 2, **choices})
    assert mutator.current_choices == before


def test_divisors_round_ratios_and_allow_the_full_width(config):
    mutator = ChannelMutator(**config(expand={"divisor": 8}, last={"divisor": 4, "min_value": 6}))
    mutator.prepare_from_supernet(ConvNet())
    for choice, number in ((0.1, 8), (0.7, 8), (0.95, 12), (12, 12), (8, 8)):
        mutator.set_choices({"expand_(0, 12)_12": choice})
        assert mutator.current_choices["expand_(0, 12)_12"] == number
    mutator.set_choices({"last_(0, 10)_10": 0.2})
    assert mutator.current_choices["last_(0, 10)_10"] == 8
    assert all(number in (8, 12) for number in (mutator.sample_choices()["expand_(0, 12)_12"] for _ in range(20)))


def test_groups_choose_together(config):
    groups = [["branch_(0, 6)_6", "hidden_(0, 9)_9"]]
    mutator = ChannelMutator(**config(), custom_groups=groups)
    mutator.prepare_from_supernet(ConvNet())
    assert list(mutator.search_groups)[0] == "branch_(0, 6)_6"
    mutator.set_choices({"branch_(0, 6)_6": 4})
    assert [unit.current_choice for unit in mutator.search_groups["branch_(0, 6)_6"]] == [4, 4]
    for wrong in ([["nothing"]], [["branch_(0, 6)_6"], ["branch_(0, 6)_6"]], [["out_(0, 4)_4"]]):
        with pytest.raises(ModelError, match="custom_groups names"):
            ChannelMutator(**config(), custom_groups=wrong).prepare_from_supernet(ConvNet())


def test_configs_of_another_model_are_refused(template, config):
    wrong = config()
    name = "stem_(0, 8)_8"
    for change, message in (
        (
            lambda unit: unit["channels"]["output_related"][0].update(name="steam"),
            "of another model.*did you mean 'stem'",
        ),
        (lambda unit: unit["channels"]["output_related"][0].update(end=16), "has 8 channels, not"),
        (lambda unit: unit["init_args"].update(num_channels=5), "no multiple of the unit's 5"),
        (lambda unit: unit["init_args"].update(divisors=8), "unexpected keyword argument 'divisors'"),
        (lambda unit: unit.update(choise=4), "did you mean 'choice'"),
        (lambda unit: unit["channels"]["output_related"][0].update(stop=16), "unknown key 'stop'"),
    ):
        changed = copy.deepcopy(wrong)
        change(changed["channel_unit_cfg"]["units"][name])
        with pytest.raises(ModelError, match=message):
            ChannelMutator(**changed).prepare_from_supernet(ConvNet())


def test_bad_configs_are_refused(config):
    for given, message in (
        ({"parse_cfg": {"type": "Tracer"}}, "unknown parse_cfg type"),
        ({"parse_cfg": {"type": "ChannelAnalyser"}}, "did you mean 'ChannelAnalyzer'"),
        ({"parse_cfg": {"type": "Config", "demo_inputs": 3}}, "unknown key 'demo_inputs'.*did you mean 'demo_input'"),
        ({"parse_cfg": {"type": "ChannelAnalyzer", "tracer_type": "Fx"}}, "known: BackwardTracer, FxTracer"),
        ({"parse_cfg": {"type": "ChannelAnalyzer", "demo_input": "x"}}, "expected demo_input to be a shape"),
        ({"channel_unit_cfg": {"type": "L1MutableUnit"}}, "did you mean 'L1MutableChannelUnit'"),
        ({"channel_unit_cfg": {"unit": {}}}, "did you mean 'units'"),
        ({"channel_unit_cfg": {"units": "/nowhere.json"}}, "no such file"),
    ):
        with pytest.raises(ModelError, match=message):
            ChannelMutator(**given)
    with pytest.raises(ModelError, match="needs the channels of every unit, and there are no units"):
        ChannelMutator(parse_cfg={"type": "Config"}).prepare_from_supernet(ConvNet())
    with pytest.raises(ModelError, match=r"no demo_input, .* one of \(1, 3, 224, 224\): .*give its shape"):
        ChannelMutator(parse_cfg={"type": "ChannelAnalyzer"}).prepare_from_supernet(torch.nn.Conv2d(1, 4, 3))
    with pytest.raises(ModelError, match="no channel mutables of its own"):
        ChannelMutator(parse_cfg={"type": "Predefined"}).prepare_from_supernet(ConvNet())
    mutator = ChannelMutator(**config())
    with pytest.raises(ModelError, match="call prepare_from_supernet"):
        mutator.sample_choices()
    mutator.prepare_from_supernet(ConvNet())
    with pytest.raises(ModelError, match="has a supernet already"):
        mutator.prepare_from_supernet(ConvNet())


@pytest.mark.parametrize("kind", ["BackwardTracer", "mmrazor.ChannelAnalyzer"])
def test_the_predecessors_demo_inputs_are_understood(kind):
    for demo in (
        [1, 3, 8, 8],
        {"type": "mmrazor.DefaultDemoInput", "input_shape": [1, 3, 8, 8]},
        torch.rand(1, 3, 8, 8),
    ):
        mutator = ChannelMutator(parse_cfg={"type": kind, "demo_input": demo, "tracer_type": "BackwardTracer"})
        assert channel_module.example_inputs(mutator.parse, ConvNet())[0].shape == (1, 3, 8, 8)
        assert json.dumps(mutator.config_template()["parse_cfg"])


def _prepared(kind, demo):
    model = randomise(kind())
    mutator = ChannelMutator(
        channel_unit_cfg="L1MutableChannelUnit", parse_cfg={"type": "ChannelAnalyzer", "demo_input": demo}
    )
    mutator.prepare_from_supernet(model)
    return model, mutator


def test_code_that_fixes_widths_runs_masked():
    model, mutator = _prepared(Tokens, (2, 3, 8, 8))
    x = torch.randn(2, 3, 8, 8)
    reference = randomise(Tokens())
    reference.load_state_dict(model.state_dict())
    assert mutator.forward_mode == "mask"
    assert "token" in mutator.masked_because
    torch.testing.assert_close(model(x), reference(x))
    names = _names(mutator)
    assert {"embed_(0, 16)_16", "up_(0, 32)_32"} <= set(names)
    heads = next(name for name in names if name.startswith("qkv"))
    mutator.set_choices({"embed_(0, 16)_16": 12, "up_(0, 32)_32": 20, heads: 3})
    # The oracle, by hand: hidden channels that are gone have no weight; heads that are gone have no value.
    kept = torch.nonzero(mutator.unit("embed_(0, 16)_16").mask).flatten()
    out = model(x)
    hidden = torch.nonzero(~mutator.unit("up_(0, 32)_32").mask).flatten()
    dead_heads = torch.nonzero(~mutator.unit(heads).mask).flatten()
    with torch.no_grad():
        reference.down.weight[:, hidden] = 0
        for head in dead_heads:
            reference.proj.weight[:, head * 4 : head * 4 + 4] = 0
        torch.testing.assert_close(_tokens_of_width(reference, x, kept), out, atol=1e-5, rtol=1e-4)


def _tokens_of_width(m, x, kept):
    """Tokens.forward with the residual stream cut to ``kept``, by hand."""
    f = torch.nn.functional

    def norm(layer, value):
        return f.layer_norm(value, (len(kept),), layer.weight[kept], layer.bias[kept])

    x = m.embed(x).flatten(2).transpose(1, 2)
    x = torch.cat([m.token.expand(len(x), -1, -1), x], 1)[..., kept]
    n, length, _ = x.shape
    qkv = f.linear(norm(m.norm1, x), m.qkv.weight[:, kept], m.qkv.bias)
    q, k, v = qkv.view(n, length, 3, 4, 4).permute(2, 0, 3, 1, 4)
    a = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
    a = a.transpose(1, 2).reshape(n, length, 16)
    x = x + f.linear(a, m.proj.weight[kept], m.proj.bias[kept])
    h = f.gelu(f.linear(norm(m.norm2, x), m.up.weight[:, kept], m.up.bias))
    x = x + f.linear(h, m.down.weight[kept], m.down.bias[kept])
    return f.linear(norm(m.norm3, x)[:, 0], m.head.weight[:, kept], m.head.bias)


def test_shuffled_channels_keep_their_share_of_each_half():
    model, mutator = _prepared(Shuffle, (2, 3, 8, 8))
    assert mutator.forward_mode == "slice"
    unit = mutator.unit("left_(0, 8)_8")
    assert (unit.segments, unit.segment_step) == ((4, 4), 2)
    mutator.set_choices({unit.name: 6})
    assert unit.mask.view(2, 4).sum(1).tolist() == [3, 3]
    with pytest.raises(ModelError, match="multiple of 2"):
        mutator.set_choices({unit.name: 5})
    x = torch.randn(2, 3, 8, 8)
    sliced = model(x)
    set_masked(model, True)
    torch.testing.assert_close(model(x), sliced)
    # Without a trial nobody knows whether the code allows other widths.
    units = mutator.config_template(with_channels=True)["channel_unit_cfg"]
    again = ChannelMutator(channel_unit_cfg=units, parse_cfg={"type": "Config"})
    again.prepare_from_supernet(Shuffle())
    assert again.forward_mode == "mask"
    assert "shuffled" in again.masked_because


@pytest.mark.parametrize("demo", [{}, {"demo_input": {"type": "mmrazor.DefaultDemoInput", "scope": "mmcls"}}])
def test_a_demo_input_that_nobody_names_is_an_image_of_imagenet(demo):
    mutator = ChannelMutator(parse_cfg={"type": "ChannelAnalyzer", "tracer_type": "FxTracer", **demo})
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=9), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
    mutator.prepare_from_supernet(model)
    assert [unit.num_channels for unit in mutator.mutable_units] == [4]
    assert tuple(mutator.parse.demo_input) == (1, 3, 224, 224) == tuple(mutator.parse_cfg["demo_input"])
