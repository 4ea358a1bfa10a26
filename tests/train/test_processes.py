"""Training on two processes: the same gradients, and the same checkpoint, as on one with the whole batch."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from razordeploy.cli.train import run

ROOT = Path(__file__).resolve().parents[2]

# Without batch norm, whose statistics are those of each process's own samples.
NET = """
import torch
from torch import nn


def net(width=4, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.GroupNorm(2, width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 3),
    )


def samples(split, count=48):
    x = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(int(split == "test")))
    return list(zip(x, net(8, 7)(x).argmax(1).tolist()))
"""
COMMON = """
data = dict(type="net:samples")
deploy = dict(backends=["onnxruntime"], input_shapes=[(1, 8, 8)])
train = dict(epochs=2, batch_size=12, lr=0.1, optimizer=dict(type="SGD", momentum=0.9), threads=1)
checkpoint = "work/out.pth"
"""
RECIPES = {
    "float": "model = dict(type='net:net')\n" + COMMON,
    "distillation": COMMON
    + """
model = dict(
    type="mmrazor.SingleTeacherDistill",
    architecture=dict(type="net:net"),
    teacher=dict(type="net:net", width=8, seed=7),
    teacher_ckpt="teacher.pth",
    distiller=dict(
        student_recorders=dict(fc=dict(type="ModuleOutputs", source="5")),
        teacher_recorders=dict(fc=dict(type="ModuleOutputs", source="5")),
        distill_losses=dict(loss_kl=dict(type="KLDivergence", tau=4)),
        loss_forward_mappings=dict(
            loss_kl=dict(
                preds_S=dict(recorder="fc", from_student=True), preds_T=dict(recorder="fc", from_student=False)
            )
        ),
    ),
)
""",
}


BOTH = """
import sys
from pathlib import Path
from razordeploy.cli.train import run

for kind in ("float", "distillation"):
    run(f"{kind}.py", work_dir=Path(f"two_{kind}"), overrides={}, resume=False, amp=False, launcher="pytorch")
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_processes_train_as_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "both.py").write_text(BOTH)
    for kind, text in RECIPES.items():
        (tmp_path / f"{kind}.py").write_text(text)
    net = importlib.import_module("net").net
    torch.save(net(8, 7).state_dict(), "teacher.pth")
    said = _two_processes(tmp_path)
    for kind in RECIPES:
        run(
            f"{kind}.py",
            work_dir=Path(f"one_{kind}"),
            overrides={"train.batch_size": "24"},
            resume=False,
            amp=False,
            launcher="none",
        )
        (name,) = (path.name for path in Path(f"one_{kind}").glob("[a-z]*.pth") if not path.name.startswith("epoch"))
        assert said.count(f"wrote two_{kind}/{name}") == 1
        whole = torch.load(f"one_{kind}/{name}", weights_only=True)
        halves = torch.load(f"two_{kind}/{name}", weights_only=True)
        start = net().state_dict()
        assert whole.keys() == halves.keys() == start.keys()
        for key, value in whole.items():
            # Four steps of 0.1 times a gradient: one that is off by 1e-6 on average shows.
            assert torch.allclose(halves[key], value, rtol=0, atol=4e-7), key
            assert not torch.allclose(start[key], value, rtol=0, atol=1e-4), key


def _two_processes(folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(_free_port()), "both.py"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
