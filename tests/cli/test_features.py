"""The visualisation scripts, as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from razordeploy.models.digits import resnet8

SCRIPTS = Path(__file__).resolve().parents[2] / "tools" / "visualizations"


def run(folder: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / script), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for width in (4, 8):
        torch.manual_seed(0)
        torch.save(resnet8(width=width).state_dict(), tmp_path / f"w{width}.pth")
        (tmp_path / f"w{width}.py").write_text(
            f"model = dict(type='razordeploy.models.digits:resnet8', width={width})\n"
            "data = dict(type='digits')\ndeploy = dict(input_shape=(1, 8, 8))\n"
        )
    return tmp_path


def test_two_models_and_their_difference(folder):
    config = str(SCRIPTS / "vis_configs" / "resnet_stages.py")
    words = ["5", "w4.py", "w8.py", config, "w4.pth", "w8.pth", "--channel-reduction", "squeeze_mean"]
    done = run(folder, "feature_diff_visualization.py", *words, "--out-file", "d.png")
    assert (done.returncode, done.stdout) == (0, "wrote d.png\n"), done.stderr
    assert (folder / "d.png").read_bytes()[:4] == b"\x89PNG"


def test_what_is_wrong_is_one_line(folder):
    (folder / "vis.py").write_text(
        "recorders = dict(a=dict(type='ModuleOutputs', source='layr1'))\nmappings = dict(a=dict(recorder='a'))\n"
    )
    done = run(folder, "feature_visualization.py", "0", "w4.py", "vis.py", "w4.pth")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "did you mean 'layer1'" in done.stderr
    done = run(
        folder, "feature_visualization.py", "9999", "w4.py", str(SCRIPTS / "vis_configs/resnet_stages.py"), "none"
    )
    assert done.returncode == 2 and "expected a number below 355, got 9999" in done.stderr
