"""Checkpoints: what loads, what is refused and why, and what a mismatch says."""

import argparse
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from razordeploy.capture.checkpoint import LoadResult, load_into, load_state_dict
from razordeploy.capture.weights_file import read_weights_file
from razordeploy.errors import CheckpointError

AGAIN = "copy or download it again"


def net():
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 1), bn=nn.BatchNorm2d(4)))


class Backbone(nn.Module):
    """The net under a prefix, as in a classifier."""

    def __init__(self):
        super().__init__()
        self.backbone = net()


class Marker:
    """Leaves a file behind when it is unpickled for real."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def save(tmp_path):
    """Save an object with torch.save and return the path."""

    def save(content, name="w.pth", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


def message(path, **options):
    with pytest.raises(CheckpointError) as caught:
        load_state_dict(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def load_message(model, path, **options):
    with pytest.raises(CheckpointError) as caught:
        load_into(model, path, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("container", [None, "state_dict", "model", "module", "model_state_dict"])
def test_containers(save, container, legacy):
    weights = net().state_dict()
    content = weights if container is None else {container: weights, "epoch": 3}
    loaded = load_state_dict(save(content, _use_new_zipfile_serialization=not legacy))
    assert list(loaded) == list(weights)
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


def test_safetensors(tmp_path):
    weights = net().state_dict()
    save_file(weights, tmp_path / "w.safetensors")
    loaded = load_state_dict(tmp_path / "w.safetensors")
    assert set(loaded) == set(weights)
    assert torch.equal(loaded["conv.weight"], weights["conv.weight"])
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-4])
    assert message(tmp_path / "w.safetensors").startswith(f"'{tmp_path}/w.safetensors' is not a whole safetensors file")


def test_what_trainers_put_beside_the_weights_is_left_out(save):
    weights = net().state_dict()
    extras = {
        "args": argparse.Namespace(lr=0.1),
        "best": np.float64(81.0),
        "state": np.arange(3),
        "object": np.array([None, "x"], dtype=object),
        "optimizer": torch.optim.Adam(net().parameters()).state_dict(),
    }
    assert set(load_state_dict(save({"state_dict": weights, **extras}))) == set(weights)


@pytest.mark.filterwarnings("ignore")
def test_checkpoint_of_mmengines_runner(tmp_path):
    from mmengine.model import BaseModel
    from mmengine.runner import Runner
    from torch.utils.data import DataLoader

    class Tiny(BaseModel):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, inputs, mode="tensor"):
            return {"loss": self.fc(inputs).sum()} if mode == "loss" else self.fc(inputs)

    runner = Runner(
        model=Tiny(),
        work_dir=str(tmp_path),
        train_dataloader=DataLoader([{"inputs": torch.ones(3)}] * 4, batch_size=2),
        train_cfg={"by_epoch": True, "max_epochs": 1},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        default_hooks={"logger": {"type": "LoggerHook", "interval": 1}},
        log_level="ERROR",
    )
    runner.train()
    with pytest.raises(Exception, match="Unsupported global"):
        torch.load(tmp_path / "epoch_1.pth", weights_only=True)
    loaded = load_state_dict(tmp_path / "epoch_1.pth")
    assert set(loaded) == {"fc.weight", "fc.bias"}
    assert torch.equal(loaded["fc.weight"], runner.model.fc.weight)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_not_run(save, tmp_path, legacy):
    marker = tmp_path / "marker"
    path = save({"state_dict": net().state_dict(), "x": Marker(marker)}, _use_new_zipfile_serialization=not legacy)
    assert message(path) == (
        f"'{path}' holds more than weights: '{os.name}.system', which could run code; save model.state_dict() or "
        "safetensors instead, or add --trust-checkpoint if you know where the file comes from"
    )
    assert not marker.exists()
    load_state_dict(path, trust=True)
    assert marker.exists(), "the marker does not work, so that the test above shows nothing"


class Method:
    """Pickles to a getattr, as the logs in a checkpoint of mmengine do."""

    def __reduce__(self):
        return getattr, ("text", "upper")


def test_getattr_reaches_nothing(save):
    path = save({"x": Method()})
    assert read_weights_file(path, trust=True)["x"]() == "TEXT"
    found = read_weights_file(path, trust=False)["x"]
    assert not callable(found)
    assert not vars(found)


def test_whole_module(save):
    path = save(net())
    assert message(path).startswith(
        f"'{path}' holds more than weights: 'torch.nn.modules.container.Sequential', which could run code; save "
        "model.state_dict()"
    )
    assert set(load_state_dict(path, trust=True)) == set(net().state_dict())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript(tmp_path):
    net_ts = torch.jit.trace(net().eval(), torch.ones(1, 3, 2, 2))
    net_ts.save(str(tmp_path / "ts.pth"))
    assert message(tmp_path / "ts.pth") == (
        f"'{tmp_path}/ts.pth' is a TorchScript program, not weights; save model.state_dict()"
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "'{path}' is empty (0 bytes); " + AGAIN),
        (
            bytes(range(7, 99)),
            "expected a checkpoint of torch.save or a .safetensors file, '{path}' starts with "
            r"b'\x07\x08\t\n\x0b\x0c\r\x0e'",
        ),
        (b"\n<!DOCTYPE html>\n<html>", "'{path}' is a web page, not a checkpoint; download the file itself"),
        (b"<html><body>404", "'{path}' is a web page, not a checkpoint; download the file itself"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "'{path}' is a git-lfs pointer, not the weights; run 'git lfs pull'",
        ),
        (b"PK\x03\x04" + bytes(99), "'{path}' is truncated: its end is missing; " + AGAIN),
    ],
)
def test_not_a_checkpoint(tmp_path, content, text):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    assert message(path) == text.format(path=path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_truncated(save, legacy, part):
    path = save(net().state_dict(), _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    assert message(path) == f"'{path}' is truncated: its end is missing; {AGAIN}"


def test_flipped_bytes_give_one_line_or_load(save):
    path = save(net().state_dict())
    content = path.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[random.integers(len(content))] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        try:
            load_into(net(), path)
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


def test_missing_folder_and_address(tmp_path, save):
    save(net().state_dict(), "resnet.pth")
    assert message(tmp_path / "resnt.pth") == f"no checkpoint '{tmp_path}/resnt.pth'; did you mean 'resnet.pth'?"
    assert message(tmp_path / "a" / "b.pth") == f"no checkpoint '{tmp_path}/a/b.pth'; check the path"
    assert message(tmp_path) == f"expected a checkpoint file, '{tmp_path}' is a folder; name a file in it"
    assert message("https://a.b/c.pth") == (
        "'https://a.b/c.pth' is an address, and nothing is downloaded; give a local file"
    )


def test_no_weights_in_it(save):
    path = save([1, 2])
    assert message(path) == f"expected weights by name in '{path}', got list"
    path = save({"epoch": 1, "net": net().state_dict()})
    assert message(path) == (
        f"'{path}' holds no weights at its top or under state_dict, model_state_dict, model, module; it has: epoch, net"
    )


def test_load_into(save):
    trained, model = net(), net()
    assert load_into(model, save(trained.state_dict())) == LoadResult()
    assert torch.equal(model.conv.weight, trained.conv.weight)


def test_key_mapping(save):
    trained, model = net(), Backbone()
    path = save({f"module.{key}": value for key, value in trained.state_dict().items()})
    load_into(model, path, key_mapping={r"^module\.": "", "^": "backbone."})
    assert torch.equal(model.backbone.conv.weight, trained.conv.weight)
    assert load_message(model, path, key_mapping={r"\..*": ""}) == (
        f"key_mapping makes two keys of '{path}' into 'module'; one is 'module.conv.bias'"
    )
    assert load_message(model, path, key_mapping={"(": ""}).startswith("key_mapping {'(': ''} does not work: missing )")
    assert "does not work: invalid group reference" in load_message(model, path, key_mapping={"a": r"\3"})


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone."])
def test_prefix_to_strip_is_spelled_out(save, prefix):
    path = save({prefix + key: value for key, value in net().state_dict().items()})
    text = load_message(net(), path)
    mapping = {"^" + prefix.replace(".", r"\."): ""}
    written = "{r'^" + prefix.replace(".", r"\.") + "': ''}"
    assert text == (
        f"'{path}' does not match the model: 6 missing (conv.weight, conv.bias, bn.weight, ...), 7 unexpected "
        f"({prefix}conv.weight, {prefix}conv.bias, {prefix}bn.weight, ...); with key_mapping={written} everything "
        "matches"
    )
    assert eval(written) == mapping
    assert load_into(net(), path, key_mapping=mapping) == LoadResult()


def test_prefix_to_add_is_spelled_out(save):
    path = save(net().state_dict())
    assert load_message(Backbone(), path).endswith("; with key_mapping={r'^': 'backbone.'} everything matches")
    assert load_into(Backbone(), path, key_mapping={r"^": "backbone."}) == LoadResult()


def test_prefix_that_helps_in_part(save):
    weights = {f"backbone.{key}": value for key, value in net().state_dict().items()}
    text = load_message(net(), save({**weights, "head.fc": torch.ones(1)}))
    assert text.endswith(r"with key_mapping={r'^backbone\.': ''} everything matches, and strict=False drops 1 more")
    del weights["backbone.conv.bias"]
    text = load_message(net(), save(weights))
    assert text.endswith(r"with key_mapping={r'^backbone\.': ''} 5 of the model's 6 keys match")


def test_mismatch_without_a_prefix(save):
    weights = net().state_dict()
    weights["conv.weight"] = torch.ones(5, 3, 1, 1)
    weights["extra"] = weights.pop("conv.bias")
    path = save(weights)
    assert load_message(net(), path) == (
        f"'{path}' does not match the model: 1 missing (conv.bias), 1 unexpected (extra), 1 of another shape "
        "(conv.weight 5x3x1x1, the model has 4x3x1x1); check that the recipe's model is the one that was trained"
    )


def test_not_strict_loads_what_matches(save):
    trained, model = net(), net()
    with torch.no_grad():
        trained.bn.weight.fill_(3)
    before = model.conv.weight.clone()
    weights = trained.state_dict()
    weights["conv.weight"] = torch.ones(5, 3, 1, 1)
    weights["extra"] = weights.pop("conv.bias")
    assert load_into(model, save(weights), strict=False) == LoadResult(
        missing=("conv.bias",), unexpected=("extra",), mismatched=("conv.weight",)
    )
    assert torch.equal(model.conv.weight, before)
    assert model.bn.weight.tolist() == [3.0] * 4


def test_not_strict_has_to_load_something(save):
    path = save({"other": torch.ones(1)})
    assert load_message(net(), path, strict=False).startswith(f"'{path}' does not match the model: 6 missing")


def test_weights_older_than_num_batches_tracked(save):
    weights = net().state_dict()
    del weights["bn.num_batches_tracked"]
    assert load_into(net(), save(dict(weights))) == LoadResult()


def test_public_cifar10_checkpoint():
    shared = Path(__file__).parents[3] / "shared" / "data"
    path = Path(os.environ.get("RAZORDEPLOY_DATA", shared)) / "checkpoints" / "resnet20-12fca82f.th"
    if not path.is_file():
        pytest.skip("needs the shared data (RAZORDEPLOY_DATA): checkpoints/resnet20-12fca82f.th")
    weights = load_state_dict(path)
    assert weights["module.linear.weight"].shape == (10, 64)
    assert all(key.startswith("module.") for key in weights)
    model = nn.Module()
    model.conv1, model.linear = nn.Conv2d(3, 16, 3, bias=False), nn.Linear(64, 10)
    assert r"with key_mapping={r'^module\.': ''} everything matches, and strict=False drops" in load_message(
        model, path
    )


def wrapped(masks):
    """The net's weights in an algorithm's checkpoint, with masks of its dynamic operations beside them."""
    state = {f"architecture.{key}": value for key, value in net().state_dict().items()}
    state["mutator.units.0.mutable_channel.mask"] = torch.zeros(4)
    return {**state, **{f"architecture.{key}": value for key, value in masks.items()}}


def test_masks_of_pruning_that_keep_everything_are_left_out(tmp_path):
    masks = {"conv.mutable_attrs.out_channels.mask": torch.ones(4, dtype=torch.bool), "bn.mutable_mask": torch.ones(4)}
    state = wrapped(masks)
    torch.save({"state_dict": state}, tmp_path / "pruned.pth")
    model = net()
    assert load_into(model, tmp_path / "pruned.pth") == LoadResult()
    assert torch.equal(model.conv.weight, state["architecture.conv.weight"])


def test_weights_of_a_pruned_model_are_not_taken_for_the_whole_one(tmp_path):
    mask = torch.tensor([True, False, True, False])
    torch.save(wrapped({"conv.mutable_attrs.out_channels.mask": mask}), tmp_path / "pruned.pth")
    with pytest.raises(CheckpointError, match="keeps 2 of 4 channels: it is of a pruned model.*razordeploy export"):
        load_into(net(), tmp_path / "pruned.pth")


def test_a_mask_of_the_models_own_is_kept(tmp_path):
    model = net()
    model.register_buffer("mask", torch.zeros(2))
    torch.save(
        {f"architecture.{k}": v for k, v in {**net().state_dict(), "mask": torch.ones(2)}.items()}, tmp_path / "m"
    )
    load_into(model, tmp_path / "m")
    assert bool(model.mask.all())
