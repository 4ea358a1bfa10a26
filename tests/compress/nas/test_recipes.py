"""Every shipped recipe of a supernet takes one training step of its own, on small images."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from razordeploy import lazy
from razordeploy.compress.algorithm.build_model import build_architecture
from razordeploy.compress.algorithm.optim import SeparateOptimWrapperConstructor
from razordeploy.compress.nas.algorithms.darts import Darts, TwoBatches
from razordeploy.compress.nas.train import build_supernet
from razordeploy.compress.pruning.finetune import build_sub_model
from razordeploy.config.paths import recipes_dir, shipped_recipes
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.data.mm import registry_scope
from razordeploy.errors import ModelError, RazorDeployError
from razordeploy.subnet.dynamic_ops.base import DynamicMixin
from razordeploy.subnet.files import read_mapping, write_mapping
from razordeploy.subnet.fix import export_fix_subnet
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutators.nas import NasMutator

pytest.importorskip("mmcls", reason="needs mmcls")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

RECIPES = [name for name in shipped_recipes() if name.startswith("nas/mmcls/") and name.endswith(".py")]
# AutoSlim is trained by the pruning algorithms, and tested there; DetNAS's backbone is that of SPOS.
SUPERNETS = [name for name in RECIPES if "supernet" in name and "autoslim" not in name and "detnas" not in name]
SUBNETS = [name for name in RECIPES if "_subnet_" in name and "autoslim" not in name and "darts" not in name]
# Smaller, so that a step takes seconds.
OPTIONS = {
    "autoformer": {"model.architecture.backbone.img_size": "32", "model.architecture.backbone.depth": "[1, 2]"},
    "attentive": {"model.architecture.input_resizer_cfg.mutable_shape.value_list": "[[32, 32], [48, 48]]"},
    "ofa": {"model.architecture.input_resizer_cfg.input_sizes": "[[32, 32], [48, 48]]"},
    "darts": {
        "model.architecture.backbone.num_layers": "3",
        "model.architecture.backbone.num_nodes": "2",
        "model.architecture.backbone.out_indices": "(2,)",
        "model.architecture.head.in_channels": "128",
    },
    "dsnas": {"model.estimator_cfg.input_shape": "(1, 3, 32, 32)", "model.pretrain_epochs": "0"},
}
# Search groups; two layers of sixteen in the transformer.
SPACES = {
    **{"autoformer": 6, "attentive": 31, "ofa": 69, "darts": 14, "dsnas": 20},
    **{"spos_shufflenet": 20, "spos_mobilenet": 22},
}


def _family(name: str) -> str:
    return next(key for key in SPACES if Path(name).stem.startswith(key))


def _load(name: str) -> Recipe:
    options = dict(OPTIONS.get(_family(name), {}))
    if _family(name) == "attentive":
        options["model.architecture.input_resizer_cfg.mutable_shape.default_value"] = "[32, 32]"
    return load_recipe(name, options)


def _batch(count: int = 2) -> dict[str, Any]:
    from mmcls.structures import ClsDataSample

    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=generator) for _ in range(count)]
    samples = [ClsDataSample(metainfo={"sample_idx": i}).set_gt_label(i) for i in range(count)]
    return {"inputs": images, "data_samples": samples}


def _optimizers(recipe: Recipe, model: torch.nn.Module) -> Any:
    config = dict(recipe.config["optim_wrapper"])
    if config.pop("constructor", "").endswith("SeparateOptimWrapperConstructor"):
        return SeparateOptimWrapperConstructor(config)(model)
    with registry_scope("mmcls"):
        return build_optim_wrapper(model, config)


@pytest.mark.parametrize("name", [pytest.param(name, id=Path(name).stem) for name in SUPERNETS])
def test_one_training_step(name):
    torch.set_num_threads(1)
    recipe = _load(name)
    algorithm = build_supernet(recipe).train()
    assert len(algorithm.mutator.search_groups) == SPACES[_family(name)]
    wrapper = _optimizers(recipe, algorithm)
    before = [p.detach().clone() for p in algorithm.parameters()]
    data: Any = TwoBatches(_batch(), _batch()) if isinstance(algorithm, Darts) else _batch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log = algorithm.train_step(data, wrapper)
    assert all(bool(torch.as_tensor(value).isfinite().all()) for value in log.values())
    assert any(not torch.equal(x, y) for x, y in zip(before, algorithm.parameters(), strict=True))
    algorithm.eval()
    found = algorithm(**algorithm.data_preprocessor(_batch(), False), mode="predict")
    assert [sample.pred_label.label.numel() for sample in found] == [1, 1]


def test_every_family_is_there():
    assert {_family(name) for name in SUPERNETS} == set(SPACES)


@pytest.mark.parametrize("name", [pytest.param(name, id=Path(name).stem) for name in SUBNETS])
def test_a_found_subnet_is_trained(name, tmp_path):
    torch.set_num_threads(1)
    small = dict(OPTIONS.get("spos_shufflenet" if "detnas" in name else _family(name), {}))
    small = {key.replace("model.architecture", "model.cfg"): v for key, v in small.items() if "architecture" in key}
    if "attentive" in name:
        small["model.cfg.input_resizer_cfg.mutable_shape.default_value"] = "[32, 32]"
    recipe = load_recipe(name, small)
    supernet = build_architecture(recipe.model["cfg"], "cfg")
    mutator = NasMutator()
    mutator.prepare_from_supernet(supernet)
    mutator.set_choices(mutator.sample_choices())
    subnet, static = export_fix_subnet(supernet, "mutable", slice_weight=True)
    file = tmp_path / "fix_subnet.yaml"
    write_mapping(file, subnet)
    assert "fix_subnet.yaml" in recipe.model["fix_subnet"]
    found = load_recipe(name, {**small, "model.fix_subnet": repr(str(file))})
    model = build_sub_model(found)
    # The files that a search leaves: weights of the subnet beside its structure.
    model.load_state_dict(static.state_dict(), strict=True)
    assert not any(isinstance(part, DynamicMixin | BaseMutable) and not part.is_fixed for part in model.modules())
    losses = model.train()(torch.randn(2, 3, 32, 32), _batch()["data_samples"], mode="loss")
    assert bool(losses["loss"].isfinite())


SHUFFLE = {"3": "shuffle_3x3", "5": "shuffle_5x5", "7": "shuffle_7x7", "x": "shuffle_xception"}
# Blocks by stage; parameters in millions as mmrazor reports them of what it calls by these names.
PUBLISHED = {
    "spos_shufflenet_subnet_8xb128_in1k": (("7373", "x553", "35353x57", "735x"), 3.35),
    "dsnas_subnet_8xb128_in1k": (("33x3", "x733", "xx7xxx73", "3xx3"), 3.55),
}


@pytest.mark.parametrize("written", ["chosen", "flat", "modules"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_subnets_make_the_published_networks(name, written, tmp_path):
    stages, millions = PUBLISHED[name]
    chosen = {f"backbone.layers.{i}.{j}": SHUFFLE[c] for i, row in enumerate(stages) for j, c in enumerate(row)}
    content = {
        "chosen": {key: {"chosen": value} for key, value in chosen.items()},
        "flat": chosen,
        "modules": {"modules": chosen, "channels": None},
    }[written]
    file = tmp_path / "published.yaml"
    write_mapping(file, content)
    recipe = load_recipe(f"nas/mmcls/{name}.py", {"model.fix_subnet": repr(str(file))})
    model = build_sub_model(recipe)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_edges_that_no_node_keeps_need_no_choice(tmp_path):
    content = read_mapping(recipes_dir() / "nas/mmcls/DARTS_V2.yaml")
    kept = {
        edge for key, entry in content.items() if not key.rpartition("_")[2].startswith("p") for edge in entry["chosen"]
    }
    short = {k: v for k, v in content.items() if not k.rpartition("_")[2].startswith("p") or k in kept}
    assert len(short) == 24 < len(content)
    file = tmp_path / "cells.yaml"
    write_mapping(file, short)
    name = "nas/mmcls/darts_subnet_1xb96_cifar10_2.0.py"
    small = {"model.cfg.backbone.num_layers": "4", "model.cfg.backbone.out_indices": "(3,)"}
    keys = [
        build_sub_model(load_recipe(name, {**small, **more})).state_dict().keys()
        for more in ({}, {"model.fix_subnet": repr(str(file))})
    ]
    assert keys[0] == keys[1]
    gone = next(iter(kept))
    write_mapping(file, {key: value for key, value in short.items() if key != gone})
    with pytest.raises(ModelError, match=f"no choice for the mutable '{gone}'"):
        build_sub_model(load_recipe(name, {**small, "model.fix_subnet": repr(str(file))}))


def test_the_published_cells_make_the_published_network():
    recipe = load_recipe("nas/mmcls/darts_subnet_1xb96_cifar10_2.0.py")
    model = build_sub_model(recipe)
    params = sum(p.numel() for name, p in model.named_parameters() if "aux" not in name)
    # The paper says 3.3 million.
    assert 3.2e6 < params < 3.4e6
    losses = model.train()(torch.randn(2, 3, 32, 32), _batch()["data_samples"], mode="loss")
    assert set(losses) == {"loss", "aux_loss"}


def test_the_detectors_recipe_says_what_it_needs():
    name = next(name for name in shipped_recipes() if name.startswith("nas/mmdet/") and "supernet" in name)
    if lazy.available("mmdet"):
        backbone = load_recipe(name).model["architecture"]["backbone"]
        assert backbone["type"] == "mmrazor.SearchableShuffleNetV2"
        return
    with pytest.raises(RazorDeployError, match="mmdet"):
        load_recipe(name)
