"""mmrazor's scripts over our verbs: the same names and flags, and files of the same names."""

from __future__ import annotations

import ast
import hashlib
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
import yaml

from razordeploy.cli import scripts
from razordeploy.config.recipe import load_recipe
from tests.cli.conftest import write_tiny

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_tiny(tmp_path).name


def _script(name, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOLS / f"{name}.py"), run_name="__main__")
    return end.value.code


def test_every_script_is_thin():
    for path in TOOLS.glob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 40, path
        assert ast.get_docstring(ast.parse(text)), path


def test_get_flops(recipe, monkeypatch, capsys):
    assert not _script("get_flops", monkeypatch, recipe, "-H", 8, "-W", 8)
    found = json.loads(capsys.readouterr().out)
    macs = 4 * 3 * 9 * 64 + 4 * 4 * 9 * 64 + 16
    assert found["macs"] == f"{macs / 1e6:.4g} M"
    assert found["flops"] == f"{2 * macs / 1e6:.4g} M"


def test_get_l1_prune_config(recipe, monkeypatch, tmp_path, capsys):
    (tmp_path / "subnet.yaml").write_text(yaml.safe_dump({"3_(0, 4)_4": 0.5}))
    words = ("--checkpoint", "full.pth", "--subnet", "subnet.yaml", "-o", "prune.py")
    assert not _script("get_l1_prune_config", monkeypatch, recipe, *words)
    made = load_recipe("prune.py")
    assert made.model["type"] == "ItePruneAlgorithm"
    assert made.model["architecture"]["type"] == "tiny:net"
    assert made.model["target_pruning_ratio"] == {"3_(0, 4)_4": 0.5}
    assert made.model["init_cfg"] == {"type": "Pretrained", "checkpoint": "full.pth"}
    assert made.model["mutator_cfg"]["parse_cfg"]["demo_input"] == [1, 3, 8, 8]
    assert "Traceback" not in capsys.readouterr().err


def test_publish_model(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"w": torch.ones(3)}, "optimizer": {"m": torch.zeros(99)}}, "epoch_9.pth")
    words = ("epoch_9.pth", "--model-name", "net", "--timestamp", "20260101", "--out-dir", "out")
    assert not _script("publish_model", monkeypatch, *words)
    (path,) = (tmp_path / "out").iterdir()
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert path.name == f"net_20260101-{digits}.pth"
    assert torch.load(path, weights_only=True).keys() == {"state_dict"}
    assert _script("publish_model", monkeypatch, "nowhere.pth") == 2
    assert "error: no checkpoint 'nowhere.pth'" in capsys.readouterr().err


def test_get_static_model(recipe, monkeypatch, tmp_path):
    folder = tmp_path / "tiny.py"
    names = {}
    exec(folder.read_text(), names)
    torch.save(names["net"]().state_dict(), "weights.pth")
    section = "prune = dict(choice=0.5)\n"
    Path(recipe).write_text(Path(recipe).read_text() + section)
    weights, structure = scripts.static_model(recipe, Path("weights.pth"), None)
    assert (weights.name, structure.name) == ("weights_pruned.pth", "weights_pruned.json")
    assert torch.load(weights, weights_only=True)["0.weight"].shape == (2, 3, 3, 3)
    assert json.loads(structure.read_text()) == {"0_(0, 4)_4": 2, "3_(0, 4)_4": 2}
    Path("subnet.yaml").write_text(yaml.safe_dump({"0_(0, 4)_4": 1}))
    Path(recipe).write_text(Path(recipe).read_text().replace(section, ""))
    made = scripts.subnet_of_supernet(recipe, Path("weights.pth"), Path("subnet.yaml"))
    assert torch.load(made, weights_only=True)["state_dict"]["0.weight"].shape == (1, 3, 3, 3)
    assert {p.name for p in tmp_path.glob("subnet_*")} == {made.name}
