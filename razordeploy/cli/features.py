"""Feature maps of one model, or of two and their difference, as a PNG: behind tools/visualizations/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from razordeploy.cli.jobs import RecipeJob
from razordeploy.compress.distill.feature_maps import MapStyle, draw_features, record_features
from razordeploy.config.mm_config import read_config
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.data.base import decode, to_tensor
from razordeploy.data.sources import build_source
from razordeploy.errors import DataError, RecipeError, UsageError

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def run(
    image: str,
    recipes: Sequence[str],
    vis_config: str,
    checkpoints: Sequence[str],
    *,
    out_file: Path,
    style: MapStyle,
    overrides: Mapping[str, str] | None = None,
) -> Path:
    """Draw what the recorders of ``vis_config`` keep of each model.

    Args:
        image: a file, or the number of a test image of the first recipe's data.
        recipes: one, or two whose difference is drawn too.
        vis_config: python file with ``recorders`` and ``mappings``; two models whose layers have other names take
            ``recorders1``, ``recorders2`` instead.
        checkpoints: of each recipe; ``none`` takes the recipe's own.
        out_file: PNG.
        style: of the maps.
        overrides: as ``--set``.

    Raises:
        UsageError, RecipeError, ModelError, DataError: what was expected and found, and where.
    """
    drawn, _ = read_config(Path(vis_config), {})
    mappings = drawn.get("mappings")
    if not isinstance(mappings, Mapping) or not mappings:
        raise RecipeError(f"{vis_config}: expected 'mappings' as name -> dict(recorder=...), got {mappings!r}")
    columns: dict[str, Mapping[str, Tensor]] = {}
    shown: Tensor | None = None
    for number, (path, checkpoint) in enumerate(zip(recipes, checkpoints, strict=True), 1):
        recipe = load_recipe(path, overrides or {})
        job = RecipeJob.open(recipe, None if checkpoint.lower() == "none" else checkpoint)
        inputs = _image(image, recipe, job)
        shown = inputs if shown is None else shown
        recorders = drawn.get(f"recorders{number}", drawn.get("recorders"))
        if not isinstance(recorders, Mapping):
            raise RecipeError(f"{vis_config}: expected 'recorders' as name -> dict(type=..., source=...)")
        title = recipe.name if recipe.name not in columns else f"{recipe.name} ({number})"
        columns[title] = record_features(job.built.module, inputs[None], recorders, mappings)
    if shown is None:
        raise UsageError("expected at least one recipe")
    return draw_features(shown, columns, style, out_file)


def _image(image: str, recipe: Recipe, job: RecipeJob) -> Tensor:
    """One input (C, H, W), preprocessed as the recipe does."""
    if image.isdecimal():
        if recipe.data is None:
            raise DataError(
                f"{recipe.path}: no 'data' section, so there is no image number {image}", hint="give a file"
            )
        source = build_source(recipe.data, "test", recipe.path.parent)
        if int(image) >= len(source):
            raise DataError(f"expected a number below {len(source)}, got {image}", hint=source.describe())
        found = source[int(image)][0]
        return found if isinstance(found, Tensor) else found[0]
    shapes = job.built.input_shapes
    if not shapes or len(shapes[0]) != 3:
        raise RecipeError(
            f"{recipe.path}: the size of the image is not known", hint="deploy=dict(input_shape=(3, H, W))"
        )
    channels, height, width = shapes[0]
    picture = decode(image, image, "L" if channels == 1 else "RGB").resize((width, height))
    mean, std = _normalisation(recipe, channels)
    return to_tensor(picture, mean, std)


def _normalisation(recipe: Recipe, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std on the 0..1 scale, by the data section, or else by the preprocessor, or else ImageNet's."""
    data: Mapping[str, Any] = recipe.data or {}
    if "mean" in data and "std" in data:
        return tuple(data["mean"]), tuple(data["std"])
    given = recipe.model.get("data_preprocessor") or recipe.config.get("data_preprocessor") or {}
    if given.get("mean") is not None and given.get("std") is not None:
        return tuple(x / 255 for x in given["mean"]), tuple(x / 255 for x in given["std"])
    return _IMAGENET if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
