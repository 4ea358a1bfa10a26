"""Resolving ``pkg.module:factory``, in the folder of the recipe too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from razordeploy.config.importing import import_from
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
    try:
        return import_from(name, folder)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ModelError(f"no module '{name}'", hint=f"looked in {folder} and in what is installed") from error
        raise ModelError(f"importing '{name}' failed: {error}", hint=f"install {error.name}") from error
    except (Exception, SystemExit) as error:
        raise ModelError(f"importing '{name}' failed: {type(error).__name__}: {error}") from error
