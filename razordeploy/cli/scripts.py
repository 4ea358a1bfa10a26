"""What mmrazor's scripts of these names do; ``tools/`` has one file for each."""

from __future__ import annotations

import hashlib
import json
import pprint
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from razordeploy.capture.checkpoint import load_state_dict
from razordeploy.cli.channel_units import find_units
from razordeploy.cli.export import export
from razordeploy.cli.jobs import RecipeJob
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import UsageError
from razordeploy.storage import atomic_write, make_folder
from razordeploy.subnet.estimate import ResourceEstimator
from razordeploy.subnet.files import read_mapping


def static_model(config: str, checkpoint: Path, out: Path | None) -> tuple[Path, Path]:
    """Write the sliced weights and the structure of a trained pruning algorithm: ``*_pruned.pth`` and ``.json``."""
    folder = out or Path("work_dirs") / Path(config).stem
    make_folder(folder)
    stem = f"{checkpoint.name.partition('.')[0]}_pruned"
    weights, structure = folder / f"{stem}.pth", folder / f"{stem}.json"
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = export(config, checkpoint=checkpoint, out=Path(temporary) / "sliced", overrides={})
        state = torch.load(made.file("checkpoint"), weights_only=True)["state_dict"]
        torch.save(state, Path(temporary) / "weights")
        (Path(temporary) / "weights").replace(weights)
        shutil.copyfile(made.file("subnet_json"), structure)
    return weights, structure


def subnet_of_supernet(config: str, checkpoint: Path, subnet: Path) -> Path:
    """Write the subnet's weights beside the supernet's: ``subnet_<time>.pth``."""
    target = checkpoint.with_name(f"subnet_{time.strftime('%Y%m%d_%H%M')}.pth")
    with tempfile.TemporaryDirectory(dir=checkpoint.parent) as temporary:
        made = export(config, checkpoint=checkpoint, subnet=subnet, out=Path(temporary) / "sliced", overrides={})
        state = torch.load(made.file("checkpoint"), weights_only=True)["state_dict"]
        torch.save({"state_dict": state, "meta": {}}, Path(temporary) / "weights")
        (Path(temporary) / "weights").replace(target)
    return target


def resources(config: str, height: int, width: int) -> dict[str, str]:
    """What one image of ``height`` x ``width`` costs in the recipe's model."""
    job = RecipeJob.open(load_recipe(config, {"checkpoint": "None"}))
    channels = (job.built.input_shapes or ((3,),))[0][0]
    found = ResourceEstimator((1, channels, height, width), as_strings=True).estimate(job.built.module)
    return {key: str(value) for key, value in found.items()}


def l1_config(config: str, checkpoint: str | None, subnet: Path | None, out: Path) -> Path:
    """Write a recipe that prunes the model of ``config`` by L1 norm and trains on.

    Without ``subnet`` every unit keeps all of its channels: a list to be edited.
    """
    mutator = find_units(config, {})
    target = mutator.choice_template
    if subnet is not None:
        target = read_mapping(subnet)
        mutator.set_choices(target)
    shape = [1, *(RecipeJob.open(load_recipe(config, {"checkpoint": "None"})).example_inputs()[0].shape[1:])]
    recipe = load_recipe(config)
    model: dict[str, Any] = {
        "_delete_": True,
        "type": "ItePruneAlgorithm",
        "architecture": recipe.model,
        "mutator_cfg": {
            "type": "ChannelMutator",
            "channel_unit_cfg": {"type": "L1MutableChannelUnit", "default_args": {"choice_mode": "ratio"}},
            "parse_cfg": {"type": "ChannelAnalyzer", "demo_input": shape, "tracer_type": "BackwardTracer"},
        },
        "target_pruning_ratio": target,
    }
    weights = checkpoint or recipe.checkpoint
    if weights is not None:
        model["init_cfg"] = {"type": "Pretrained", "checkpoint": weights}
    pruned = str(Path("work_dirs") / out.stem / "pruned.pth")
    lines = [f"_base_ = [{str(recipe.path.resolve())!r}]", f"checkpoint = {pruned!r}", "key_mapping = {}"]
    text = f'"""L1 pruning of {recipe.path.name}."""\n\n' + "\n".join(lines)
    atomic_write(out, f"{text}\nmodel = {pprint.pformat(model, width=110, sort_dicts=False)}\n")
    return out


def publish(checkpoint: Path, model_name: str, timestamp: str, out_dir: Path) -> Path:
    """Write the weights alone, under a name that ends in the first 8 digits of their SHA-256.

    Raises:
        UsageError: a name that is none.
    """
    for value in (model_name, timestamp):
        if not re.fullmatch(r"[\w.+-]+", value):
            raise UsageError(f"expected a name of letters, digits and '_.+-', got '{value}'")
    state: dict[str, Tensor] = {key: value.clone() for key, value in load_state_dict(checkpoint).items()}
    make_folder(out_dir)
    with tempfile.TemporaryDirectory(dir=out_dir) as temporary:
        file = Path(temporary) / "weights.pth"
        torch.save({"state_dict": state}, file)
        digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
        target = out_dir / f"{model_name}_{timestamp}-{digits}.pth"
        file.replace(target)
    return target


def as_json(values: dict[str, str]) -> str:
    """Values as indented JSON."""
    return json.dumps(values, indent=2)
