"""``export``, ``channel-units`` and ``split-checkpoint``: what they write, what reads it, and what they refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml

import razordeploy as rd
from razordeploy.artifact import Artifact
from razordeploy.sliced import load_model
from tests.cli.conftest import write_tiny

UNITS = {"0_(0, 4)_4": 2, "3_(0, 4)_4": 3}


@pytest.fixture(scope="module")
def sliced(server, tmp_path_factory):
    """A folder with the tiny recipe, weights of its full model, and its half in ``half``."""
    folder = tmp_path_factory.mktemp("sliced")
    recipe = write_tiny(folder, deploy={"backends": ["onnxruntime"], "input_shapes": [(3, 8, 8)], "max_drop": 100.0})
    torch.manual_seed(1)
    net = _net(folder)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.3 * torch.rand_like(tensor))
    torch.save(net.state_dict(), folder / "full.pth")
    (folder / "units.json").write_text(json.dumps(UNITS))
    words = ("export", recipe.name, "--subnet", "units.json", "--slice-weight", "--checkpoint", "full.pth")
    result = server.run((*words, "--out", "half"), folder)
    assert result.code == 0, result.err
    return folder


def _net(folder, width=4):
    names = {}
    exec((folder / "tiny.py").read_text(), names)
    return names["net"](width).eval()


@pytest.fixture
def run(server, sliced):
    """``run("export", ...)`` in that folder."""
    return lambda *words, **options: server.run(words, sliced, **options)


def test_every_file_is_the_pruned_model(sliced):
    made = Artifact.load(sliced / "half")
    made.verify()
    assert (made.kind, made.stage) == ("sliced", "export")
    for role in ("subnet", "subnet_json"):
        assert yaml.safe_load(made.file(role).read_text()) == UNITS
    full = _net(sliced)
    full.load_state_dict(torch.load(sliced / "full.pth", weights_only=True))
    x = torch.randn(2, 3, 8, 8)
    expected = rd.prune(full, example_inputs=x, choice=UNITS)
    state = torch.load(made.file("checkpoint"), weights_only=True)["state_dict"]
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.state_dict().items()}
    from onnxruntime import InferenceSession
    from safetensors.torch import load_file

    assert load_file(made.file("weights")).keys() == state.keys()
    session = InferenceSession(str(made.file("onnx")), providers=["CPUExecutionProvider"])
    found = session.run(None, {made.inputs[0].name: x.numpy()})[0]
    np.testing.assert_allclose(found, expected.eval()(x).detach(), atol=1e-5)
    assert made.metrics["subnet"]["params"] == sum(p.numel() for p in expected.parameters())
    assert made.metrics["full"]["params"] == sum(p.numel() for p in full.parameters())
    assert made.metrics["subnet"]["macs"] < made.metrics["full"]["macs"]


def test_it_is_loaded_in_another_process(sliced):
    module = load_model(sliced / "half")
    assert [module[0].out_channels, module[3].out_channels] == [2, 3]
    assert not module.training


def test_it_flows_on(run, sliced):
    quick = ("--benchmark-seconds", "0", "--backend", "onnxruntime")
    result = run("ptq", "half", "--work-dir", "int8", *quick)
    assert result.code == 0, result.err
    assert rd.load_engine(sliced / "int8" / "onnxruntime").coverage().int8 > 0
    assert run("convert", "half", "--work-dir", "float", *quick).code == 0
    result = run("evaluate", "half", "int8/onnxruntime")
    assert result.code == 0, result.err
    assert "half" in result.out
    again = run("export", "half", "--export-channel", "--out", "with_channels")
    assert again.code == 0, again.err
    written = json.loads((sliced / "with_channels" / "fix_subnet.json").read_text())
    units = written["channel_unit_cfg"]["units"]
    assert {name: units[name]["choice"] for name in UNITS} == UNITS
    assert all(entry["channels"]["output_related"] for entry in units.values())


def test_python_takes_the_folder(sliced, tmp_path):
    x = torch.randn(16, 3, 8, 8)
    made = rd.ptq(sliced / "half", [x], backend="onnxruntime", out_dir=tmp_path / "out")
    engine = rd.load_engine(made)
    expected = load_model(sliced / "half")(x).detach().numpy()
    assert np.abs(engine(x.numpy()) - expected).max() < 0.1 * np.abs(expected).max() + 0.1
    torch.testing.assert_close(rd.load_model(sliced / "half")(x), load_model(sliced / "half")(x))


def test_without_slicing_there_is_the_file_alone(run, sliced):
    result = run("export", "tiny_recipe.py", "--subnet", "units.json", "--no-slice-weight", "--out", "named")
    assert result.code == 0, result.err
    made = Artifact.load(sliced / "named")
    assert made.kind == "subnet"
    assert set(made.files) == {"subnet", "subnet_json"}


def test_a_section_of_the_recipe_prunes(run, sliced):
    words = ("--set", "prune.choice=0.5", "prune.checkpoint='full.pth'", "--out", "by_rule")
    assert run("export", "tiny_recipe.py", *words).code == 0
    assert yaml.safe_load((sliced / "by_rule" / "fix_subnet.yaml").read_text()) == {"0_(0, 4)_4": 2, "3_(0, 4)_4": 2}


def test_a_part_is_pruned_again(run, sliced):
    result = run("export", "half", "--set", "prune.units={'3_(0, 3)_3': 1}", "--out", "less")
    assert result.code == 0, result.err
    made = Artifact.load(sliced / "less")
    # The file is about the whole model, and the weights are what the part had.
    assert yaml.safe_load(made.file("subnet").read_text()) == {"0_(0, 4)_4": 2, "3_(0, 4)_4": 1}
    x = torch.randn(2, 3, 8, 8)
    half = load_model(sliced / "half")
    expected = rd.prune(half, example_inputs=x, choice={"3_(0, 3)_3": 1})
    assert torch.allclose(load_model(sliced / "less")(x), expected(x), atol=1e-6)
    whole = run("export", "half", "--set", "prune={'units': {'3_(0, 3)_3': 1}}", "--out", "as_dict")
    assert whole.code == 0, whole.err
    # One channel is no unit any more.
    again = run("export", "less", "--set", "prune.units={'0_(0, 2)_2': 1}", "--out", "least")
    assert again.code == 0, again.err
    assert yaml.safe_load(Artifact.load(sliced / "least").file("subnet").read_text()) == {
        "0_(0, 4)_4": 1,
        "3_(0, 4)_4": 1,
    }
    refused = run("export", "half", "--set", "prune.units={'3_(0, 4)_4': 1}", "--out", "refused")
    assert refused.code == 2 and "did you mean '3_(0, 3)_3'?" in refused.err and not (sliced / "refused").exists()


def test_training_starts_from_the_part(run, sliced):
    train = "train={'epochs': 1, 'lr': 1e-12, 'threads': 1}"
    result = run("train", "half", "--work-dir", "tuned", "--set", train)
    assert result.code == 0, result.err
    tuned = torch.load(sliced / "tuned" / "float.pth", weights_only=True)
    state = load_model(sliced / "half").state_dict()
    torch.testing.assert_close(tuned["0.weight"], state["0.weight"], atol=1e-6, rtol=0)
    result = run("export", "half", "--checkpoint", "tuned/float.pth", "--out", "tuned_half")
    assert result.code == 0, result.err


def test_a_template_is_written_edited_and_read(run, sliced):
    printed = run("channel-units", "tiny_recipe.py")
    assert printed.code == 0, printed.err
    template = json.loads(printed.out)
    assert template["channel_unit_cfg"]["type"] == "L1MutableChannelUnit"
    assert {"0_(0, 4)_4", "3_(0, 4)_4"} <= template["channel_unit_cfg"]["units"].keys()
    result = run("channel-units", "tiny_recipe.py", "-c", "-i", "-o", "template.yaml")
    assert result.code == 0, result.err
    full = yaml.safe_load((sliced / "template.yaml").read_text())
    entry = full["channel_unit_cfg"]["units"]["0_(0, 4)_4"]
    assert entry["init_args"]["num_channels"] == 4
    assert {c["name"] for c in entry["channels"]["output_related"]} == {"0", "1"}
    entry["choice"] = 0.5
    (sliced / "edited.yaml").write_text(yaml.safe_dump(full))
    result = run("export", "tiny_recipe.py", "--subnet", "edited.yaml", "--checkpoint", "full.pth", "--out", "edited")
    assert result.code == 0, result.err
    assert load_model(sliced / "edited")[0].out_channels == 2
    choices = run("channel-units", "tiny_recipe.py", "--choice")
    assert json.loads(choices.out) == {"0_(0, 4)_4": 1.0, "3_(0, 4)_4": 1.0}


def test_one_checkpoint_becomes_several(run, sliced):
    (sliced / "narrow.yaml").write_text(yaml.safe_dump({"0_(0, 4)_4": 1}))
    words = ("split-checkpoint", "tiny_recipe.py", "full.pth", "--channel-cfgs", "units.json", "narrow.yaml")
    result = run(*words, "--output-dir", "split")
    assert result.code == 0, result.err
    widths = [load_model(sliced / "split" / f"checkpoint_{i}")[0].out_channels for i in (1, 2)]
    assert widths == [2, 1]
    result = run(*words[:-2], "units.json", "units.json", "--output-dir", "split")
    assert (result.code, result.error) == (2, "--channel-cfgs names a file twice: units.json, units.json")


SLIMMABLE = {
    "type": "SlimmableNetwork",
    "architecture": {"type": "tiny:net"},
    "mutator": {
        "type": "SlimmableChannelMutator",
        "channel_unit_cfg": {
            "type": "SlimmableChannelUnit",
            "default_args": {"candidate_choices": [0.5, 1.0], "choice_mode": "ratio"},
        },
        "parse_cfg": {"type": "ChannelAnalyzer", "demo_input": [1, 3, 8, 8]},
    },
}


def test_a_slimmable_checkpoint_is_split_with_the_norms_of_each_width(cli, tmp_path, monkeypatch):
    pytest.importorskip("mmengine", reason="needs mmengine")
    from razordeploy.compress.algorithms import built_algorithm
    from razordeploy.config.recipe import load_recipe
    from razordeploy.subnet.fix import export_fix_subnet

    monkeypatch.chdir(tmp_path)
    recipe = write_tiny(tmp_path, model=SLIMMABLE)
    algorithm = built_algorithm(load_recipe(recipe))
    for name, tensor in algorithm.architecture.state_dict().items():
        if "running" in name:
            tensor.add_(torch.rand_like(tensor))
    torch.save(algorithm.architecture.state_dict(), "all.pth")
    for index in (0, 1):
        algorithm.mutator.switch(index)
        (tmp_path / f"subnet_{index}.json").write_text(json.dumps(algorithm.mutator.choice_template))
    result = cli("split-checkpoint", recipe.name, "all.pth", "--channel-cfgs", "subnet_0.json", "subnet_1.json")
    assert result.code == 0, result.err
    sizes = []
    for index in (0, 1):
        algorithm.mutator.switch(index)
        expected = export_fix_subnet(algorithm, slice_weight=True)[1].state_dict()
        file = tmp_path / f"checkpoint_{index + 1}" / "model.pth"
        found = torch.load(file, weights_only=True)["state_dict"]
        assert all(torch.equal(found[key], value) for key, value in expected.items())
        sizes.append(sum(value.numel() for value in found.values()))
    assert sizes[0] < sizes[1] < sum(v.numel() for v in algorithm.architecture.state_dict().values())


class TestBadInput:
    @pytest.mark.parametrize(
        ("units", "text"),
        [
            ({"0_(0, 4)_4": 0}, "'0_(0, 4)_4': expected 1 to 4 channels, got 0"),
            ({"0_(0, 4)_4": 5}, "'0_(0, 4)_4': expected 1 to 4 channels, got 5"),
            ({"0_(0, 4)_5": 2}, "did you mean '0_(0, 4)_4'?"),
            ({"stem_(0, 4)_4": 2}, "the model has changed since"),
            ({"7_(0, 4)_4": 2}, "cannot be pruned: it is an output of the model"),
            ({}, "the subnet is empty"),
            ([1], "expected a mapping, got list"),
        ],
    )
    def test_units(self, run, sliced, units, text):
        (sliced / "bad.json").write_text(json.dumps(units))
        result = run("export", "tiny_recipe.py", "--subnet", "bad.json", "--out", "refused")
        assert (result.code, text in result.error) == (2, True), result.error
        assert not (sliced / "refused").exists()

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            ((), "nothing says which part of tiny:net is wanted; give --subnet FILE"),
            (("--subnet", "nowhere.yaml"), "no such file: nowhere.yaml"),
            (("--set", "prune.choice=0"), "above 0 and up to 1.0, for 'prune.choice', got int 0"),
            (("--set", "prune.units={'0_(0, 4)_4': 3}", "prune.round_to=2"), "3 of 4 is no possible width"),
            (("--set", "prune={}"), "'prune' says no widths"),
            (("--set", "prune.choice=0.5", "subnet='units.json'"), "both say what is deployed"),
            (("--subnet", "units.json", "--checkpoint", "other.pth"), "is neither of the full model nor of the part"),
            (("--subnet", "units.json", "--set", "model.width=6"), "it is of another model, of another width"),
        ],
    )
    def test_words(self, run, sliced, words, text):
        torch.save(_net(sliced, 3).state_dict(), sliced / "other.pth")
        result = run("export", "tiny_recipe.py", *words, "--out", "refused")
        assert (result.code, text in result.error) == (2, True), result.error
        assert not (sliced / "refused").exists()

    @pytest.mark.parametrize("channels", [(), ("-c",)])
    def test_a_model_that_has_changed_since(self, run, sliced, channels):
        (sliced / "template.json").write_text(
            run("channel-units", "tiny_recipe.py", *channels).out.replace('"choice": 1.0', '"choice": 0.5', 1)
        )
        changed = (sliced / "tiny.py").read_text().replace("nn.BatchNorm2d(width), ", "")
        (sliced / "changed.py").write_text(changed)
        text = (sliced / "tiny_recipe.py").read_text().replace("tiny:", "changed:")
        (sliced / "changed_recipe.py").write_text(text)
        result = run("export", "changed_recipe.py", "--subnet", "template.json", "--out", "refused")
        assert (result.code, "the model has changed since" in result.error) == (2, True), result.error
        assert not (sliced / "refused").exists()

    def test_an_engine_is_no_model(self, cli, earlier):
        result = cli("export", "work/openvino", "--out", "refused")
        assert result.code == 2
        assert "expected a model's" in result.error
