"""Functions and methods by their dotted path, as recorders and deliveries name them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

from razordeploy.errors import RecipeError, nearest


def find_function(path: str, noun: str) -> tuple[ModuleType, str]:
    """Module and name of the function ``pkg.module.function``.

    Raises:
        RecipeError: nothing callable is there; names the nearest.
    """
    module_path, _, name = _checked(path, 2, noun, "pkg.module.function").rpartition(".")
    module = _import(module_path, path, noun)
    _callable(module, name, f"module '{module_path}'", path, noun)
    return module, name


def find_method(path: str, noun: str) -> tuple[type, str]:
    """Class and name of the method ``pkg.module.Class.method``.

    Raises:
        RecipeError: nothing callable is there; names the nearest.
    """
    class_path, _, name = _checked(path, 3, noun, "pkg.module.Class.method").rpartition(".")
    module_path, _, class_name = class_path.rpartition(".")
    module = _import(module_path, path, noun)
    found = _attribute(module, class_name, f"module '{module_path}'", path, noun)
    if not isinstance(found, type):
        raise RecipeError(f"{noun} '{path}': expected '{class_path}' to be a class, got {type(found).__name__}")
    _callable(found, name, f"class '{class_path}'", path, noun)
    return found, name


def _checked(path: object, least: int, noun: str, form: str) -> str:
    if isinstance(path, str):
        parts = path.split(".")
        if len(parts) >= least and all(part.isidentifier() for part in parts):
            return path
    raise RecipeError(f"{noun}: expected a path of the form '{form}', got {path!r}")


def _import(module_path: str, path: str, noun: str) -> ModuleType:
    module: ModuleType | None = None
    for depth, part in enumerate(module_path.split(".")):
        name = ".".join(module_path.split(".")[: depth + 1])
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise RecipeError(f"{noun} '{path}': importing '{name}' failed: {error}") from error
            where = f"package '{module.__name__}' has" if module else "there is"
            hint = nearest(part, _submodules(module)) if module else "check the path, or install the package"
            raise RecipeError(f"{noun} '{path}': {where} no module '{part}'", hint=hint) from error
        except ImportError as error:
            raise RecipeError(f"{noun} '{path}': importing '{name}' failed: {error}") from error
    assert module is not None
    return module


def _submodules(package: ModuleType) -> list[str]:
    return [found.name for found in pkgutil.iter_modules(getattr(package, "__path__", []))]


def _attribute(owner: Any, name: str, where: str, path: str, noun: str) -> Any:
    if not hasattr(owner, name):
        known = [key for key in dir(owner) if not key.startswith("__") and callable(getattr(owner, key, None))]
        raise RecipeError(f"{noun} '{path}': {where} has no '{name}'", hint=nearest(name, known))
    return getattr(owner, name)


def _callable(owner: Any, name: str, where: str, path: str, noun: str) -> Callable[..., Any]:
    found = _attribute(owner, name, where, path, noun)
    if not callable(found) or isinstance(found, type):
        raise RecipeError(f"{noun} '{path}': expected a function, got {type(found).__name__}")
    return found
