"""``mmrazor::path``: mmrazor's configs, which the shipped recipes of the same names stand for."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from razordeploy.config.paths import recipes_dir
from razordeploy.errors import RecipeError, nearest

SCOPES = ("mmrazor", "razordeploy")


def is_older_base(path: str) -> bool:
    """Whether ``path`` is ``mmrazor::...`` or ``razordeploy::...``."""
    return path.partition("::")[0] in SCOPES and "::" in path


def find_base(path: str) -> Path:
    """The shipped file for ``mmrazor::_base_/settings/imagenet_bs1024_spos.py`` or ``mmrazor::nas/mmcls/spos/x.py``.

    Parts lie where mmrazor has them; of whole configs the name of the file tells.

    Raises:
        RecipeError: there is none, or more than one; says the nearest.
    """
    inside = PurePosixPath(path.partition("::")[2])
    inside = inside if inside.suffix == ".py" else inside.with_suffix(".py")
    root = recipes_dir()
    if (root / inside).is_file():
        return root / inside
    parts = "_base_" in inside.parts
    known = {
        file.relative_to(root).as_posix(): file
        for file in sorted(root.rglob("*.py"))
        if ("_base_" in file.relative_to(root).parts[:1]) == parts and (parts or "_base_" not in file.parts)
    }
    found = [file for name, file in known.items() if not parts and PurePosixPath(name).name == inside.name]
    if len(found) == 1:
        return found[0]
    why = "there are several of that name" if found else "there is no such recipe here"
    raise RecipeError(f"'{path}': {why}", hint=nearest(inside.as_posix(), known))
