"""Shipped pruning recipes build and take one training step; those of the digits train for an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from razordeploy.compress.algorithm.optim import SeparateOptimWrapperConstructor
from razordeploy.compress.pruning.finetune import build_sub_model
from razordeploy.compress.pruning.train import build_algorithm, train_pruning
from razordeploy.config.paths import shipped_recipes
from razordeploy.config.recipe import load_recipe
from razordeploy.data.mm import registry_scope

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

DIGITS = [n for n in shipped_recipes() if n.startswith("pruning/digits/") and not n.endswith("_search.py")]
FOLDERS = ("pruning/mmcls/", "nas/mmcls/autoslim/")
MMCLS = [name for name in shipped_recipes() if name.startswith(FOLDERS)]
# One of each algorithm; what is left out here differs from it in widths or in the network.
QUICK = {
    "l1-norm_resnet34_8xb32_in1k_c",
    "group_fisher_act_prune_mobilenet-v2_8xb32_in1k",
    "dmcp_mbv2_supernet_32xb64",
    "autoslim_mbv2_1.5x_supernet_8xb256_in1k",
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", [pytest.param(n, id=Path(n).stem) for n in DIGITS])
def test_digits(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(name, {"train.epochs": "1"})
    recipe.model.pop("init_cfg", None)
    if recipe.model["type"] == "DMCP":
        recipe.model["arch_start_train"] = 0
    path = train_pruning(recipe, work_dir="run")
    assert path.is_file()
    written = {file.name for file in path.parent.iterdir()}
    assert {"fix_subnet.yaml", "fix_subnet_weight.pth"} <= written or path.name == "supernet.pth"


def small(name: str) -> Any:
    """The recipe on images of 32x32, without the files that are not here."""
    recipe = load_recipe(name)
    model = recipe.model
    model.pop("init_cfg", None)
    for key in ("mutator", "mutator_cfg"):
        if key in model:
            model[key]["parse_cfg"]["demo_input"] = (1, 3, 32, 32)
    if model["type"] == "DMCP":
        model.update(arch_start_train=0, target_flops=1.0)
    return recipe


def batch(count: int = 4) -> dict[str, Any]:
    from mmcls.structures import ClsDataSample

    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=generator) for _ in range(count)]
    return {"inputs": inputs, "data_samples": [ClsDataSample().set_gt_label(i) for i in range(count)]}


def optimizers(recipe: Any, model: torch.nn.Module) -> Any:
    config = dict(recipe.config["optim_wrapper"])
    if config.pop("constructor", "").endswith("SeparateOptimWrapperConstructor"):
        return SeparateOptimWrapperConstructor(config)(model)
    with registry_scope("mmcls"):
        return build_optim_wrapper(model, config)


def trained(name: str) -> bool:
    return not any(part in name for part in ("_deploy", "_compact_", "_subnet_", "_finetune_", "_search_"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, id=Path(n).stem, marks=[pytest.mark.slow] * (Path(n).stem not in QUICK))
        for n in filter(trained, MMCLS)
    ],
)
def test_one_step_of_the_networks_of_mmcls(name):
    pytest.importorskip("mmcls", reason="needs mmcls")
    recipe = small(name)
    algorithm = build_algorithm(recipe).train()
    before = {key: p.detach().clone() for key, p in algorithm.architecture.named_parameters()}
    log = algorithm.train_step(batch(), optimizers(recipe, algorithm))
    assert all(bool(torch.as_tensor(value).isfinite().all()) for value in log.values())
    assert any(not torch.equal(p, before[key]) for key, p in algorithm.architecture.named_parameters())
    if "target_pruning_ratio" in recipe.model:
        kept = algorithm.mutator.choice_template
        for unit, ratio in recipe.model["target_pruning_ratio"].items():
            found = algorithm.mutator.unit(unit)
            assert kept[found.name] == pytest.approx(ratio, abs=1 / found.num_channels)


def test_a_subnet_of_mmcls_is_built_and_steps():
    pytest.importorskip("mmcls", reason="needs mmcls")
    recipe = load_recipe("pruning/mmcls/dmcp/dmcp_mbv2_subnet_32xb64.py")
    parse = {"type": "ChannelAnalyzer", "demo_input": [1, 3, 32, 32]}
    units = {
        "backbone.layer1.0.conv.1.conv_(0, 16)_16": {"choice": 8},
        "backbone.conv2.conv_(0, 1280)_1280": {"choice": 640},
    }
    recipe.model["fix_subnet"] = {"channel_unit_cfg": {"units": units}, "parse_cfg": parse}
    model = build_sub_model(recipe).train()
    assert model.head.fc.in_features == 640
    log = model.train_step(batch(), optimizers(recipe, model))
    assert bool(log["loss"].isfinite())


def test_every_algorithm_is_there():
    types = {load_recipe(name).model["type"] for name in DIGITS}
    assert types == {
        *("AutoSlim", "DCFF", "DMCP", "GroupFisherAlgorithm", "ItePruneAlgorithm", "RatioPruner", "SlimmableNetwork")
    }
