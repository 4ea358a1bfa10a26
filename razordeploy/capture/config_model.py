"""The model of another config, and the student inside an algorithm's."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from razordeploy import lazy
from razordeploy.config.mm_config import read_config
from razordeploy.config.older_bases import find_base, is_older_base
from razordeploy.config.recipe import Recipe
from razordeploy.errors import CheckpointError, RecipeError


def deployed(recipe: Recipe) -> Recipe:
    """The recipe of what is deployed: an algorithm's ``architecture`` takes the place of the algorithm.

    Raises:
        RecipeError: the architecture is the model of another config that cannot be read.
    """
    inner = recipe.model.get("architecture", recipe.model.get("student"))
    if ":" in recipe.model["type"] or not isinstance(inner, Mapping):
        return recipe
    model = read_model_config(inner, recipe.path.parent, "architecture") if "cfg_path" in inner else dict(inner)
    if model.get("data_preprocessor") is None and recipe.model.get("data_preprocessor") is not None:
        model["data_preprocessor"] = recipe.model["data_preprocessor"]
    return dataclasses.replace(recipe, model=model)


def read_model_config(config: Mapping[str, Any], folder: Path, where: str) -> dict[str, Any]:
    """Read the model that ``dict(cfg_path='mmcls::resnet/resnet18_8xb32_in1k.py', ...)`` names.

    Args:
        config: further keys replace those of the model at its top.
        folder: where a relative path starts, besides the working directory.
        where: what is read, for messages.

    Raises:
        RecipeError: there is no such config, or it has no model.
        CheckpointError: it asks for weights that would be downloaded.
        MissingDependency: the package is not installed.
    """
    own = {key: value for key, value in config.items() if key not in ("cfg_path", "pretrained")}
    path = str(config["cfg_path"])
    if config.get("pretrained"):
        raise CheckpointError(
            f"{where}: pretrained=True of '{path}' would download weights, and nothing is downloaded",
            hint="get the file and name it in teacher_ckpt, or in init_cfg",
        )
    found = read_config(_locate(path, folder, where), {})[0]
    model = found.get("model")
    if not isinstance(model, dict) or "type" not in model:
        raise RecipeError(f"{where}: the config '{path}' has no model")
    model.setdefault(
        "_scope_", found.get("default_scope") or ("mmcls" if is_older_base(path) else path.partition("::")[0])
    )
    if model.get("data_preprocessor") is None and found.get("data_preprocessor") is not None:
        model["data_preprocessor"] = found["data_preprocessor"]
    return {**model, **own}


def _locate(path: str, folder: Path, where: str) -> Path:
    package, separator, inside = path.partition("::")
    if not separator:
        beside = folder / path
        return beside if not Path(path).exists() and beside.exists() else Path(path)
    if is_older_base(path):
        return find_base(path)
    lazy.require(package, extra="openmmlab" if package == "mmpretrain" else package)
    spec = importlib.util.find_spec(package)
    configs = Path((spec and spec.origin) or "").parent / ".mim" / "configs"
    file = configs / (inside if inside.endswith(".py") else f"{inside}.py")
    if not file.is_file():
        raise RecipeError(f"{where}: {package} has no config '{inside}'", hint=f"look in {configs}")
    return file
