"""The detection recipes of distillation on mmdet's own models: one training step each, random weights, small images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from razordeploy.compress.distill.train import build_algorithm
from razordeploy.config.paths import shipped_recipes
from razordeploy.config.recipe import load_recipe

pytest.importorskip("mmdet", reason="mmdet is not installed: tools/detection_env.sh makes its environment")
pytest.importorskip("mmcv.ops", reason="mmcv has no operators here: tools/detection_env.sh makes its environment")
# What OpenMMLab's packages warn of is nothing that is tested here.
pytestmark = pytest.mark.filterwarnings("ignore")

RECIPES = [name for name in shipped_recipes() if name.startswith("distill/mmdet/")]


def without_weights(config: object) -> None:
    """Published backbones are not here."""
    if isinstance(config, dict):
        config.pop("init_cfg", None) if isinstance(config.get("init_cfg"), dict) else None
        for value in config.values():
            without_weights(value)
    elif isinstance(config, list):
        for value in config:
            without_weights(value)


@pytest.mark.parametrize("name", [pytest.param(n, id=Path(n).stem) for n in RECIPES])
def test_one_training_step(name):
    from mmdet.testing import demo_mm_inputs

    torch.set_num_threads(1)
    recipe = load_recipe(name)
    recipe.model["random_teacher"] = True
    recipe.model.pop("teacher_ckpt")
    without_weights(recipe.model)
    algorithm = build_algorithm(recipe).train()
    classes = 80
    mask = "mask" in name
    packed = demo_mm_inputs(2, [[3, 128, 128], [3, 128, 128]], num_classes=classes, with_mask=mask)
    data = algorithm.data_preprocessor(packed, True)
    losses = algorithm.loss(data["inputs"], data["data_samples"])
    total, log = algorithm.parse_losses(losses)
    total.backward()
    named = [key for key in log if key.startswith("distill.")]
    assert len(named) == len(algorithm.distiller.distill_losses)
    assert all(bool(torch.as_tensor(log[key]).isfinite()) for key in named)
    assert all(p.grad is None for p in algorithm.teacher.parameters())
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in algorithm.student.backbone.parameters())
