"""What a worker of a search loads once, and then does for each candidate."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from razordeploy.capture.build import build_model
from razordeploy.cli.jobs import EVALUATION_BATCH, RecipeJob
from razordeploy.compress.nas.search.scorer import Scorer, Stream, kept
from razordeploy.compress.nas.search.supernet import open_supernet
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.config.search import SearchConfig
from razordeploy.data.loader import batches
from razordeploy.data.sources import build_source
from razordeploy.errors import RecipeError
from razordeploy.subnet.fix import load_fix_subnet

_LOADED: dict[str, Scorer] = {}
_RECIPE: dict[str, Recipe] = {}


def load(recipe_path: str, overrides: Mapping[str, str], checkpoint: str | None, trust: bool) -> None:
    """Load the supernet and its data, once a worker."""
    recipe = load_recipe(recipe_path, overrides)
    _RECIPE["recipe"] = recipe
    _LOADED["scorer"] = open_scorer(recipe, checkpoint, trust=trust)


def score(subnet: dict[str, Any]) -> tuple[float, float]:
    """Score and seconds of one candidate, in a worker that has loaded its supernet."""
    return _LOADED["scorer"](_LOADED["scorer"].supernet.space.check(subnet))


def sliced(subnet: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Content of the subnet file, and the state dict of the model that was scored, as bytes of a checkpoint."""
    content, static = _LOADED["scorer"].static(_LOADED["scorer"].supernet.space.check(subnet))
    buffer = io.BytesIO()
    torch.save({"state_dict": {k: v.detach().cpu() for k, v in static.state_dict().items()}}, buffer)
    return content, buffer.getvalue()


def figures(content: dict[str, Any], weights: bytes) -> dict[str, float]:
    """What the metric says of the files of a subnet, read into a fresh model."""
    scorer = _LOADED["scorer"]
    fresh = build_model(dataclasses.replace(_RECIPE["recipe"], checkpoint=None)).module
    load_fix_subnet(fresh, content, example_inputs=scorer.example_inputs or None)
    fresh.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True)["state_dict"], strict=True)
    found = scorer.figures(fresh.eval())
    return {name: value for name, value in found.items() if name != "samples"}


def open_scorer(recipe: Recipe, checkpoint: str | Path | None = None, *, trust: bool = False) -> Scorer:
    """The supernet of ``recipe`` and the data that its candidates are judged on.

    Raises:
        RazorDeployError: the recipe, the weights or the data cannot be used.
    """
    search = recipe.search or SearchConfig()
    recipe = _with_loaders(recipe)
    supernet = open_supernet(recipe, checkpoint, trust=trust)
    job = RecipeJob(recipe=recipe, built=supernet.built)
    if not job.has_evaluation():
        raise RecipeError(
            f"{recipe.path}: a search needs labelled data to score candidates on",
            hint="add data=dict(type='image_folder', root=...) or a val_dataloader",
        )
    samples = recipe.calibration.num_samples if search.recalibrate is None else search.recalibrate
    return Scorer(
        supernet=supernet,
        evaluation=kept(_evaluation(job, search), search.num_samples),
        calibration=kept(_recalibration(job, samples), samples) if samples else None,
        calibration_samples=samples,
        metric=job.metric(),
        score=search.score or ("top1" if supernet.built.dense is None else "bbox_mAP"),
        example_inputs=tuple(x[:1] for x in job.example_inputs() if isinstance(x, torch.Tensor)),
    )


def _with_loaders(recipe: Recipe) -> Recipe:
    """The recipe with the data that mmrazor's search loop names; it takes the place of the validation data."""
    loop = recipe.config.get("train_cfg")
    if recipe.data is not None or not isinstance(loop, Mapping):
        return recipe
    validation, calibration = loop.get("dataloader"), loop.get("calibrate_dataloader")
    if isinstance(validation, Mapping):
        recipe = dataclasses.replace(recipe, val_dataloader=dict(validation), test_dataloader=None)
    if isinstance(calibration, Mapping):
        recipe = dataclasses.replace(recipe, calibrate_dataloader=dict(calibration))
    return recipe


def _evaluation(job: RecipeJob, search: SearchConfig) -> Stream:
    recipe = job.recipe
    if recipe.data is None:
        return job.evaluation
    source = build_source(recipe.data, search.split, recipe.path.parent)
    # A seeded subset, not the first samples: a data set may be sorted by class.
    count = search.num_samples
    return functools.partial(
        batches, source, EVALUATION_BATCH, limit=count, seed=recipe.seed, shuffle=count is not None
    )


def _recalibration(job: RecipeJob, samples: int) -> Stream:
    """The calibration stream, of ``samples`` samples."""
    recipe = job.recipe
    if recipe.data is None:
        return job.calibration
    wanted = recipe.calibration
    source = build_source(recipe.data, wanted.split, recipe.path.parent)
    return functools.partial(batches, source, wanted.batch_size or 128, limit=samples, seed=recipe.seed, shuffle=True)
