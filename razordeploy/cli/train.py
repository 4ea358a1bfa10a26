"""``razordeploy train``: the float stage, and algorithms."""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from razordeploy.capture.build import locate
from razordeploy.capture.checkpoint import load_into
from razordeploy.capture.detector import build_detector, is_detector
from razordeploy.capture.openmmlab import build_classifier
from razordeploy.cli.given import resolve
from razordeploy.cli.jobs import RecipeJob
from razordeploy.compress.algorithm.weights import initialise
from razordeploy.compress.algorithms import DISTILL, TRAINERS, algorithm_name, is_algorithm, is_supernet, trainer_of
from razordeploy.config.mm_quant import is_quantized_architecture
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.data.sources import build_source
from razordeploy.errors import RecipeError
from razordeploy.train.config_runner import train_config
from razordeploy.train.processes import join
from razordeploy.train.runner import is_first_process, train_float


def run(
    recipe_path: str,
    *,
    work_dir: Path | None,
    overrides: Mapping[str, str],
    resume: bool,
    amp: bool,
    launcher: str,
) -> None:
    """Train the recipe's model from scratch and write its weights where the recipe looks for its checkpoint."""
    given = recipe_path
    recipe_path, overrides = resolve(recipe_path, overrides)
    recipe = load_recipe(recipe_path, overrides)
    wanted = recipe.checkpoint
    join(launcher)
    checkpoint = train(
        recipe_path,
        work_dir=work_dir,
        overrides=overrides,
        go_on=given != recipe_path,
        resume=resume,
        amp=amp,
        launcher=launcher,
    )
    if not is_first_process():
        return
    console = Console()
    console.print(f"wrote {checkpoint}", markup=False, soft_wrap=True)
    decided = checkpoint.with_name("fix_subnet.yaml").is_file() and is_algorithm(recipe)
    follow = ["razordeploy", "export" if decided else "search" if is_supernet(recipe) else "ptq", given]
    if wanted is None or Path(wanted) != checkpoint:
        follow += ["--checkpoint", str(checkpoint)]
    if decided:
        follow += ["--slice-weight", "--out", str(checkpoint.with_suffix(""))]
    console.print(f"next: {shlex.join(follow)}", markup=False, soft_wrap=True)


def train(
    recipe_path: str,
    *,
    work_dir: Path | None = None,
    overrides: Mapping[str, str],
    go_on: bool = False,
    resume: bool = False,
    amp: bool = False,
    launcher: str = "none",
) -> Path:
    """As ``run``, without a word; returns the path of the weights.

    ``go_on`` starts from the recipe's checkpoint, where it has one, instead of from scratch.

    Raises:
        RecipeError: nothing to train.
        RazorDeployError: the model, the data or a checkpoint cannot be used.
    """
    recipe = load_recipe(recipe_path, {**overrides, "checkpoint": "None"})
    wanted = load_recipe(recipe_path, overrides).checkpoint
    if "onnx" in recipe.model:
        raise RecipeError(f"{recipe.path}: an ONNX file cannot be trained", hint="train the model that it was made of")
    if is_quantized_architecture(recipe.model):
        raise RecipeError(
            f"{recipe.path}: MMArchitectureQuant is trained with the engine's grids in it",
            hint=f"razordeploy qat {recipe_path}",
        )
    folder = work_dir or (Path(wanted).parent if wanted else Path("work_dirs") / recipe.name)
    inside = {"architecture", "student"} & recipe.model.keys() and ":" not in recipe.model["type"]
    if is_algorithm(recipe) or inside:
        return _compress(recipe, folder, wanted, resume=resume, amp=amp, launcher=launcher)
    start = wanted if go_on else None
    if recipe.data is None and recipe.train_dataloader is not None and ":" not in recipe.model["type"]:
        return _train_openmmlab(recipe, folder, wanted, start, resume=resume, amp=amp, launcher=launcher)
    return _train(recipe, folder, start, resume=resume, amp=amp, launcher=launcher)


def _train_openmmlab(
    recipe: Recipe, folder: Path, wanted: str | None, start: str | None, *, resume: bool, amp: bool, launcher: str
) -> Path:
    """Train a classifier or detector by its own config, as OpenMMLab's ``tools/train.py`` does."""
    scope = str(recipe.config.get("default_scope") or "mmcls")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model: Any = (build_detector if is_detector(recipe) else build_classifier)(recipe)
        if start is None:
            with _without_a_list_of_tensors():
                initialise(model)
        else:
            load_into(model, locate(start, recipe), key_mapping=recipe.key_mapping, strict=recipe.strict)
        model._is_init = True
    return train_config(
        model,
        model,
        recipe.config,
        work_dir=folder,
        checkpoint=Path(wanted).name if wanted else "float.pth",
        scope=scope,
        seed=recipe.seed,
        resume=resume,
        amp=amp,
        launcher=launcher,
    )


@contextlib.contextmanager
def _without_a_list_of_tensors() -> Iterator[None]:
    """mmengine logs how each one was initialised."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def _train(recipe: Recipe, folder: Path, start: str | None, *, resume: bool, amp: bool, launcher: str) -> Path:
    if recipe.train is None or recipe.data is None:
        raise RecipeError(
            f"{recipe.path}: nothing to train: expected the sections 'train' and 'data'",
            hint="train=dict(epochs=10), data=dict(type='image_folder', root=...); or an OpenMMLab config",
        )
    return train_float(
        RecipeJob.open(recipe, start).built.module,
        build_source(recipe.data, "train", recipe.path.parent),
        work_dir=folder,
        seed=recipe.seed,
        resume=resume,
        amp=amp,
        launcher=launcher,
        **recipe.train,
    )


def _compress(recipe: Recipe, folder: Path, wanted: str | None, *, resume: bool, amp: bool, launcher: str) -> Path:
    """Train a model that holds what is deployed as its ``architecture``."""
    name, algorithm = Path(wanted).name if wanted else None, algorithm_name(recipe)
    if recipe.prune is not None and TRAINERS.get(algorithm, DISTILL) != DISTILL:
        raise RecipeError(
            f"{recipe.path}: 'prune' narrows a plain model or a student, and {algorithm} chooses widths itself",
            hint="leave 'prune' out to train, and give it to export or ptq",
        )
    return trainer_of(recipe)(recipe, work_dir=folder, checkpoint=name, resume=resume, amp=amp, launcher=launcher)
