"""Every shipped distillation recipe takes one training step of its own: models, losses, optimizers, schedules apart."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from razordeploy.compress.algorithm.optim import SeparateOptimWrapperConstructor
from razordeploy.compress.distill.hooks import waiting_connectors
from razordeploy.compress.distill.train import build_algorithm
from razordeploy.config.paths import shipped_recipes
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.data.mm import registry_scope

pytest.importorskip("mmcls", reason="needs mmcls")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

RECIPES = [name for name in shipped_recipes() if name.startswith("distill/mmcls/")]
# 86 million parameters and images of 224x224.
SLOW = {"deit-base_regnety160_pt-16xb64_in1k"}
RESNET18 = {"cfg_path": "mmcls::resnet/resnet18_8xb32_in1k.py"}


def without_files(recipe: Recipe) -> Recipe:
    """The recipe with random teachers: the published weights are not here."""
    model = recipe.model
    if model["type"] != "SelfDistill":
        model["random_teacher"] = True
    model.pop("teacher_ckpt", None)
    for teacher in model.get("teachers", {}).values():
        teacher.pop("ckpt_path")
    if Path(recipe.path).stem in SLOW:
        # The published teacher is timm's.
        model["teacher"] = RESNET18
    if Path(recipe.path).stem == "abloss_logits_resnet50_resnet18_8xb32_in1k":
        model["architecture"].pop("init_cfg")
    for loss in model["distiller"]["distill_losses"].values():
        if loss["type"] == "CRDLoss":
            loss.update(sample_n=100, neg_num=8)
    return recipe


def batch(recipe: Recipe, count: int = 4) -> dict[str, Any]:
    from mmcls.structures import ClsDataSample

    side = 224 if Path(recipe.path).stem in SLOW else 32
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=generator) for _ in range(count)]
    samples = [ClsDataSample(metainfo={"sample_idx": i}).set_gt_label(i) for i in range(count)]
    return {"inputs": images, "data_samples": samples}


def optimizers(recipe: Recipe, model: torch.nn.Module) -> Any:
    config = dict(recipe.config["optim_wrapper"])
    if config.pop("constructor", "").endswith("SeparateOptimWrapperConstructor"):
        return SeparateOptimWrapperConstructor(config)(model)
    with registry_scope("mmcls"):
        return build_optim_wrapper(model, config)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (Path(n).stem in SLOW), id=Path(n).stem) for n in RECIPES]
)
def test_one_training_step(name):
    torch.set_num_threads(1)
    recipe = without_files(load_recipe(name))
    model = build_algorithm(recipe).train()
    for connector, _ in waiting_connectors(model.distiller).values():
        assert any(hook["type"] == "ConnectorPretrainHook" for hook in recipe.config["custom_hooks"])
        connector.set_phase("train")
    wrapper = optimizers(recipe, model)
    before = [p.detach().clone() for p in model.student.parameters()]
    teachers = [p for key, p in model.named_parameters() if key.startswith("teacher")]
    with warnings.catch_warnings():
        # mmcls says that its DeiT head cannot be trained; the recipe trains the two linear layers in it apart.
        warnings.filterwarnings("ignore", message="MMClassification cannot train")
        log = model.train_step(batch(recipe), wrapper)
    assert all(bool(torch.as_tensor(value).isfinite().all()) for value in log.values())
    named = {key.rpartition(".")[2] for key in log}
    assert set(model.distiller.distill_losses) <= named
    after = list(model.student.parameters())
    assert any(not torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert all(p.grad is None for p in teachers)


def test_every_family_is_there():
    stems = " ".join(Path(name).stem for name in RECIPES)
    families = ("kd_", "fitnets", "abloss", "factor-transfer", "ofd", "rkd", "wsld", "dkd", "dist_", "crd", "at_")
    for family in (*families, "mgd", "byot", "dafl", "dfad", "zskt", "deit", "meal_", "mealv2"):
        assert family in stems
