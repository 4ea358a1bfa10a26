"""What RECIPE may be: a recipe, or the folder of an artifact that holds a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from razordeploy.storage import MANIFEST


def resolve(recipe: str, overrides: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The recipe and its overrides; of an artifact's folder those that make its model.

    Raises:
        UsageError: an artifact that holds no model.
    """
    path = Path(recipe).expanduser()
    if path.name != MANIFEST and not (path / MANIFEST).is_file():
        return recipe, dict(overrides)
    from razordeploy.sliced import as_recipe

    made_of, own = as_recipe(path)
    return made_of, {**own, **overrides}
