"""A pruned model deploys: one recipe, half the width, int8 engines of two backends."""

from __future__ import annotations

import json

import pytest

from razordeploy.artifact import Artifact
from razordeploy.cli.export import export
from razordeploy.cli.ptq import run
from razordeploy.lazy import available

SIDE = 32
IMAGES = """
import torch


def samples(split, side):
    generator = torch.Generator().manual_seed(int(split == "test"))
    x = torch.randn(8, 3, side, side, generator=generator)
    return [(x[i], i) for i in range(8)]
"""
RECIPE = """
_base_ = ["mmcls::{base}"]
{model}
data = dict(type="pruned_images:samples", side={side})
prune = dict(choice=0.5, round_to=8)
calibration = dict(num_samples=8, batch_size=8)
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, {side}, {side}), max_drop=100.0)
"""
VIT = (
    "model = dict(backbone=dict(_delete_=True, type='VisionTransformer', img_size=32, patch_size=8, arch=dict("
    "embed_dims=64, num_layers=2, num_heads=4, feedforward_channels=128)), head=dict(in_channels=64))"
)
MODELS = {
    "resnet50": ("resnet/resnet50_8xb32_in1k.py", "", 0.35),
    "mobilenet_v2": ("mobilenet_v2/mobilenet-v2_8xb32_in1k.py", "", 0.55),
    "vit": ("vision_transformer/vit-base-p16_pt-64xb64_in1k-224.py", VIT, 0.6),
}


@pytest.mark.skipif(not available("mmcls"), reason="mmcls is not installed")
@pytest.mark.parametrize("name", [pytest.param("resnet50", marks=pytest.mark.slow), "mobilenet_v2", "vit"])
def test_a_pruned_model_becomes_two_engines(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    base, model, most = MODELS[name]
    (tmp_path / "pruned_images.py").write_text(IMAGES)
    recipe = tmp_path / f"{name}.py"
    recipe.write_text(RECIPE.format(base=base, model=model, side=SIDE))
    made = export(recipe.name, out=tmp_path / "half", overrides={})
    assert made.metrics["subnet"]["params"] < most * made.metrics["full"]["params"]
    code = run(
        "half",
        backends=None,
        checkpoint=None,
        work_dir=tmp_path / "engines",
        overrides={},
        command="razordeploy ptq half",
        threads=1,
        benchmark_seconds=0,
        trust=False,
    )
    report = json.loads((tmp_path / "engines" / "report.json").read_text())["backends"]
    assert code == 0, report
    for backend in ("openvino", "onnxruntime"):
        assert report[backend]["coverage"]["int8"] > 0.9 * report[backend]["coverage"]["planned"]
        Artifact.load(tmp_path / "engines" / backend).verify()
    floats = [report[b]["metrics"]["float"]["top1"] for b in report]
    assert floats[0] == floats[1]
