"""What RECIPE may be: a recipe, or the folder of an artifact that holds a model."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from razordeploy.errors import UsageError
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
    if "subnet" in own and any(key.partition(".")[0] == "prune" for key in overrides):
        return made_of, pruned_again(own, overrides)
    return made_of, {**own, **overrides}


def pruned_again(own: Mapping[str, str], overrides: Mapping[str, str]) -> dict[str, str]:
    """The overrides of an artifact's model and those that prune it: they are about that model, not about the whole.

    Args:
        own: of the artifact, as ``as_recipe`` gives them.
        overrides: what was asked for, with keys of the section ``prune``.

    Raises:
        UsageError: the section as a whole is no dict.
    """
    section: dict[str, Any] = {"_delete_": True, "of": ast.literal_eval(own["subnet"])}
    asked = dict(overrides)
    if "prune" in asked:
        try:
            given = ast.literal_eval(asked.pop("prune"))
        except (ValueError, SyntaxError) as error:
            raise UsageError("--set prune: expected a dict", hint="--set prune.choice=0.5") from error
        if given is None:
            return {**own, **asked}
        if not isinstance(given, dict):
            raise UsageError(f"--set prune: expected a dict, got {given!r}", hint="--set prune.choice=0.5")
        section |= given
    return {**own, "prune": repr(section), "subnet": "None", **asked}
