"""Where the shipped recipes and backend configs lie: in the repository, or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

from razordeploy.errors import RazorDeployError, RecipeError, nearest

RECIPE_SUFFIXES = (".py", ".yaml", ".yml", ".json")
_PACKAGE = Path(__file__).resolve().parents[1]


def backend_configs_dir() -> Path:
    """Folder of the ``<backend>.yaml`` files."""
    return _shipped("backend_configs")


def recipes_dir() -> Path:
    """Folder of the shipped recipes."""
    return _shipped("recipes")


def shipped_recipes() -> tuple[str, ...]:
    """Every shipped recipe that can be run, as ``ptq/x.py``; ``_base_`` parts and mmdeploy's configs are left out."""
    root = recipes_dir()
    found = (path.relative_to(root) for path in root.rglob("*.py"))
    return tuple(sorted(path.as_posix() for path in found if not {"_base_", "deploy"} & set(path.parts)))


def resolve_recipe(path: str | Path) -> Path:
    """Find a recipe: a path from the working directory first, then a shipped one (``ptq/x.py``, ``recipes/ptq/x.py``).

    Raises:
        RecipeError: there is no such file; the text names the nearest one.
    """
    wanted = Path(path).expanduser()
    if not str(path):
        raise RecipeError("expected the path of a recipe, got an empty string", hint="write for example ptq/x.py")
    inside = Path(*wanted.parts[1:]) if wanted.parts[:1] == ("recipes",) else wanted
    candidates = [wanted] if wanted.is_absolute() else [wanted, recipes_dir() / inside]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    for candidate in candidates:
        if candidate.is_dir():
            raise RecipeError(f"expected a recipe file, '{path}' is a folder", hint="name a file in it")
    raise RecipeError(f"no recipe '{path}'", hint=_nearest_recipe(wanted, inside))


def _shipped(name: str) -> Path:
    # The wheel's copy comes first: next to an installed package lies site-packages, where a folder of that name is
    # somebody else's.
    for folder in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise RazorDeployError(f"'{name}' is missing from this installation", hint="reinstall razordeploy")


def _nearest_recipe(wanted: Path, inside: Path) -> str:
    folder = wanted.parent
    beside = [path.name for path in folder.iterdir() if path.suffix in RECIPE_SUFFIXES] if folder.is_dir() else []
    hint = nearest(wanted.name, beside) if beside else ""
    return hint if hint.startswith("did you mean") else nearest(inside.as_posix(), shipped_recipes())
