"""Optional packages, imported only where they are used."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from razordeploy.errors import MissingDependency


def available(module: str) -> bool:
    """Tell whether ``module`` can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def require(module: str, *, extra: str) -> ModuleType:
    """Import ``module`` or raise the pip line that installs it.

    A package that is installed but broken raises its own error, not this one.

    Raises:
        MissingDependency: the top-level package of ``module`` is not installed.
    """
    top = module.partition(".")[0]
    if not available(top):
        raise MissingDependency(f"'{top}' is not installed", hint=f"pip install 'razordeploy[{extra}]'")
    return importlib.import_module(module)
