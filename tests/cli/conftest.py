"""The real command line in a process of its own, and small things to run it on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TINY = """
import os
import torch
from torch import nn


def net(width=4, inputs=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4),
    )


def samples(split, count=96, change="x"):
    generator = torch.Generator().manual_seed(int(split == "test"))
    x = torch.randn(count, 3, 8, 8, generator=generator)
    x = eval(change)
    labels = net().eval()(torch.nan_to_num(x.float())).argmax(1) if x.shape[1:] == (3, 8, 8) else [0] * count
    return [(x[i], int(labels[i])) for i in range(count)]


def same(count=96):
    return samples("train", count)
"""
RECIPE = """
model = dict(type="tiny:net")
data = dict(type="tiny:samples")
calibration = dict(num_samples=64, batch_size=16)
quantize = dict()
deploy = dict(backends=["onnxruntime"], input_shapes=[(3, 8, 8)], max_drop=100.0)
"""


@dataclass(frozen=True)
class Result:
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one ``error:`` line."""
        lines = [line for line in self.err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err + self.out, self.err
        return lines[0].removeprefix("error: ")


class Server:
    """A process that forks one child per command."""

    def __init__(self) -> None:
        root = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "2", "COLUMNS": "80"}
        for name in ("RAZORDEPLOY_DEBUG", "FORCE_COLOR"):
            environment.pop(name, None)
        script = Path(__file__).with_name("fork_server.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(
        self,
        argv: tuple[str, ...],
        cwd: Path,
        *,
        env: dict[str, str] | None = None,
        before: str = "",
        started: Callable[[int, Path], None] | None = None,
    ) -> Result:
        """Run ``razordeploy ARGV`` in ``cwd``; ``before`` is python to run first, ``started`` gets pid and stderr."""
        out, err = cwd / ".out", cwd / ".err"
        request = {"argv": argv, "cwd": str(cwd), "env": env or {}, "before": before, "out": str(out), "err": str(err)}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        if started is not None:
            started(pid, err)
        code = int(self.process.stdout.readline())
        return Result(code, out.read_text(), err.read_text())


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    assert found.process.stdin is not None
    assert found.process.stdout is not None
    found.process.stdin.close()
    found.process.wait(30)
    found.process.stdout.close()


@pytest.fixture
def cli(server: Server, tmp_path: Path) -> Callable[..., Result]:
    """``cli("ptq", "recipe.py", ...) -> Result``, run in the test's own folder."""
    return lambda *argv, **options: server.run(argv, tmp_path, **options)


def write_tiny(folder: Path, **changes: Any) -> Path:
    """A recipe of a tiny network and random data in ``folder``; ``changes`` replace its sections."""
    (folder / "tiny.py").write_text(TINY)
    recipe = folder / "tiny_recipe.py"
    recipe.write_text(RECIPE + "".join(f"{key} = {value!r}\n" for key, value in changes.items()))
    return recipe


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., str]:
    """``tiny(quantize=dict(...)) -> name`` of a recipe in the test's folder."""
    return lambda **changes: write_tiny(tmp_path, **changes).name


@pytest.fixture(scope="session")
def made(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny recipe and its finished run of both engines, in ``work/``."""
    folder = tmp_path_factory.mktemp("made")
    recipe = write_tiny(folder)
    argv = ("ptq", recipe.name, "--backend", "openvino,onnxruntime", "--work-dir", "work", "--benchmark-seconds", "0")
    result = server.run(argv, folder)
    assert result.code == 0, result.err
    return folder


@pytest.fixture
def earlier(made: Path, tmp_path: Path) -> Path:
    """A copy of that run's work dir, ``work``, in the test's folder: what a failing run must not touch."""
    shutil.copytree(made / "work", tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="session")
def digits(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a small CNN, trained for some epochs on the digits."""
    folder = tmp_path_factory.mktemp("digits")
    result = server.run(("train", "ptq/digits_resnet8.py", "--work-dir", "float", "--set", "train.epochs=4"), folder)
    assert result.code == 0, result.err
    return folder / "float" / "float.pth"


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file; the lock and the cache are no results."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock" and p.parent.name != "cache")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def wait_for(text: str, file: Path, seconds: float = 60) -> None:
    """Return as soon as ``file`` contains ``text``."""
    end = time.monotonic() + seconds
    while text not in (file.read_text() if file.exists() else ""):
        assert time.monotonic() < end, f"no '{text}' in {file}"
        time.sleep(0.01)
