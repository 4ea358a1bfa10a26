"""Checkpoints of algorithms, in mmrazor's layouts: taken as they are where a plain model is meant, or converted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from razordeploy.capture.checkpoint import load_into
from razordeploy.errors import CheckpointError
from razordeploy.integrations.checkpoints import convert

TOOLS = Path(__file__).resolve().parents[2] / "tools" / "model_converters"


def net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def algorithm(tmp_path: Path) -> tuple[Path, nn.Sequential]:
    """A file as a quantized, distilled model leaves it: the architecture, a teacher, one graph per mode."""
    student, teacher = net(1), net(2)
    state = {f"architecture.{k}": v for k, v in student.state_dict().items()}
    state |= {f"teacher.{k}": v for k, v in teacher.state_dict().items()}
    state |= {
        f"qmodels.{mode}.{k}": v for mode in ("tensor", "predict", "loss") for k, v in student.state_dict().items()
    }
    state["qmodels.predict.activation_post_process_0.scale"] = torch.tensor([0.1])
    path = tmp_path / "epoch_1.pth"
    torch.save({"meta": {}, "state_dict": state}, path)
    return path, student


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_a_plain_model_takes_the_architecture_of_an_algorithm(tmp_path):
    path, student = algorithm(tmp_path)
    model = net(3)
    load_into(model, path)
    assert same(model, student)


def test_another_model_is_still_refused(tmp_path):
    path, _ = algorithm(tmp_path)
    with pytest.raises(CheckpointError, match="does not match the model"):
        load_into(nn.Sequential(nn.Conv2d(3, 5, 3)), path)


def test_the_student_alone(tmp_path):
    path, student = algorithm(tmp_path)
    made = convert(path, "student")
    assert made.name == "epoch_1_student.pth"
    state = torch.load(made, weights_only=True)["state_dict"]
    assert state.keys() == student.state_dict().keys()
    with pytest.raises(CheckpointError, match=r"expected keys that start with 'qmodels\.predict\.'"):
        convert(made, "quantized")


def test_the_script_keeps_the_deployed_graph(tmp_path):
    path, student = algorithm(tmp_path)
    command = [sys.executable, str(TOOLS / "convert_quant_ckpt.py"), str(path), "--out-path", str(tmp_path / "q.pth")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, f"wrote {tmp_path / 'q.pth'}\n"), done.stderr
    state = torch.load(tmp_path / "q.pth", weights_only=True)["state_dict"]
    assert set(state) == {*student.state_dict(), "activation_post_process_0.scale"}
    missing = subprocess.run([*command[:2], str(tmp_path / "no.pth")], capture_output=True, text=True, timeout=120)
    assert missing.returncode == 2 and missing.stderr.startswith("error: ")
