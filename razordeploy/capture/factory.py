"""Resolving ``pkg.module:factory``, in the folder of the recipe too."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from razordeploy.errors import ModelError, nearest


def resolve_factory(reference: str, folder: Path) -> Callable[..., Any]:
    """Find what ``pkg.module:attribute`` names; modules in ``folder`` come before installed ones.

    Raises:
        ModelError: the module is missing or fails to import, or the attribute is missing or cannot be called.
    """
    name, _, attribute = reference.partition(":")
    if not all(part.isidentifier() for part in f"{name}.{attribute}".split(".")):
        raise ModelError(f"expected a model type of the form 'pkg.module:factory', got '{reference}'")
    found: Any = _import(name, folder)
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [key for key in dir(found) if not key.startswith("_")]
            raise ModelError(f"'{reference}': '{name}' has no '{attribute}'", hint=nearest(part, known))
        found = getattr(found, part)
    if not callable(found):
        raise ModelError(f"'{reference}': expected a class or a function, got {type(found).__name__}")
    return found


def _import(name: str, folder: Path) -> ModuleType:
    with _importing_from(folder):
        _forget_namesakes(name, folder)
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and (name == error.name or name.startswith(f"{error.name}.")):
                raise ModelError(f"no module '{name}'", hint=f"looked in {folder} and in what is installed") from error
            raise ModelError(f"importing '{name}' failed: {error}", hint=f"install {error.name}") from error
        except (Exception, SystemExit) as error:
            raise ModelError(f"importing '{name}' failed: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _forget_namesakes(name: str, folder: Path) -> None:
    """Drop a module that another recipe's folder has imported under the same name: it would be the wrong model."""
    top, folder = name.partition(".")[0], folder.resolve()
    local = [folder / f"{top}.py", folder / top / "__init__.py"]
    loaded = getattr(sys.modules.get(top), "__file__", None)
    if loaded is None or Path(loaded).resolve() in local or not any(path.is_file() for path in local):
        return
    for key in [key for key in sys.modules if key == top or key.startswith(f"{top}.")]:
        del sys.modules[key]
