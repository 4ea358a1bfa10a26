"""Recipes of detectors and segmentation: each distiller fits its names and trains a small dense network of our own.

The packages that their models come from are in environments of their own; tests/detection trains the real ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from razordeploy.compress.distill.algorithms.table import ALGORITHMS
from razordeploy.config.paths import recipes_dir, shipped_recipes

RECIPES = [n for n in shipped_recipes() if re.match(r"distill/mm(det|det3d|seg)/", n)]


class Pyramid(nn.Module):
    """Five levels of 256 channels, each half as large as the one before."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 256, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        level = self.conv(x)
        levels = [level]
        for _ in range(4):
            level = nn.functional.avg_pool2d(level, 2, ceil_mode=True)
            levels.append(level)
        return tuple(levels)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gfl_cls = nn.Conv2d(256, 4, 1)
        self.conv_seg = nn.Conv2d(256, 4, 1)

    def forward(self, levels: tuple[Tensor, ...]) -> list[Tensor]:
        return [self.gfl_cls(level) for level in levels]


class Dense(BaseModel):
    """Backbone, pyramid, one head per level and one of segmentation; called as OpenMMLab's models are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, width, 3, 2, 1)
        self.neck = Pyramid(width)
        self.bbox_head = Head()
        self.decode_head = Head()

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return self.neck(self.backbone(inputs).relu())

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        levels = self.extract_feat(inputs)
        scores = self.bbox_head(levels)
        segments = self.decode_head.conv_seg(levels[0])
        if mode != "loss":
            return scores, segments
        return {"loss_cls": sum(s.square().mean() for s in scores), "loss_seg": segments.square().mean()}


def model_of(name: str) -> dict[str, Any]:
    """The ``model`` of a recipe, without its bases: those lie in packages that are not here."""
    text = (recipes_dir() / name).read_text()
    found: dict[str, Any] = {}
    exec(compile(text, name, "exec"), found)
    return found["model"]


@pytest.mark.parametrize("name", [pytest.param(n, id=Path(n).stem) for n in RECIPES])
def test_one_training_step_of_a_small_network(name):
    config = model_of(name)
    student, teacher = Dense(4), Dense(8)
    before = [p.clone() for p in teacher.parameters()]
    algorithm = ALGORITHMS[config["type"]](architecture=student, teacher=teacher, distiller=config["distiller"])
    algorithm.train()
    inputs = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    losses = algorithm.loss(inputs)
    distilled = {key: value for key, value in losses.items() if key.startswith("distill.")}
    assert len(distilled) == len(config["distiller"]["distill_losses"])
    assert all(bool(value.isfinite()) and float(value.detach()) > 0 for value in distilled.values())
    sum(distilled.values()).backward()
    assert student.backbone.weight.grad is not None and bool(student.backbone.weight.grad.abs().sum() > 0)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert all(p.grad is None for p in teacher.parameters())


def test_every_family_is_there():
    stems = " ".join(RECIPES)
    for family in ("mmdet/cwd_", "mmdet/fbkd_", "mmdet/mgd_", "mmdet/pkd_", "mmdet3d/pkd_", "mmseg/cwd_"):
        assert family in stems
