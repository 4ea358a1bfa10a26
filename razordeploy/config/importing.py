"""Modules that a recipe names: those in its own folder come before installed ones."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType


def import_from(name: str, folder: Path) -> ModuleType:
    """Import the module ``name``, of ``folder`` if it is there; raises what importing it raises."""
    with _importing_from(folder):
        _forget_namesakes(name, folder)
        return importlib.import_module(name)


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
    """Drop a module that another recipe's folder has imported under the same name: it would be the wrong one."""
    top, folder = name.partition(".")[0], folder.resolve()
    local = [folder / f"{top}.py", folder / top / "__init__.py"]
    loaded = getattr(sys.modules.get(top), "__file__", None)
    if loaded is None or Path(loaded).resolve() in local or not any(path.is_file() for path in local):
        return
    for key in [key for key in sys.modules if key == top or key.startswith(f"{top}.")]:
        del sys.modules[key]
