"""Find backends by name, without importing an engine until one is used."""

from __future__ import annotations

import importlib
import shutil
from importlib.metadata import entry_points

from razordeploy.backends.base import Backend
from razordeploy.config.backend_spec import BackendSpec, load_backend_spec
from razordeploy.config.paths import backend_configs_dir
from razordeploy.errors import MissingDependency, UsageError, nearest
from razordeploy.lazy import available

BUILT_IN = ("openvino", "onnxruntime", "torch_native", "academic")
ENTRY_POINTS = "razordeploy.backends"


def backend_names() -> tuple[str, ...]:
    """Names of the built-in backends, then of those that other packages register."""
    outside = (point.name for point in entry_points(group=ENTRY_POINTS))
    return tuple(dict.fromkeys((*BUILT_IN, *outside)))


def find_backend(name: str) -> Backend:
    """Return the backend called ``name``.

    Raises:
        UsageError: no such backend; names the nearest.
        MissingDependency: a package it needs is not installed; the text is the pip line.
    """
    if name in BUILT_IN:
        # Checked before the import, so that the answer is the pip line and not an ImportError.
        check_installed(load_backend_spec(backend_configs_dir() / f"{name}.yaml"))
        backend: Backend = importlib.import_module(f"razordeploy.backends.{name}.backend").BACKEND
        return backend
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == name:
            outside: Backend = point.load()
            check_installed(outside.spec)
            return outside
    raise UsageError(f"unknown backend '{name}'", hint=nearest(name, backend_names()))


def missing_modules(spec: BackendSpec) -> list[str]:
    """Modules and programs that ``spec`` needs and that are not there."""
    programs = [p for p in spec.programs if shutil.which(p) is None]
    return [m for m in spec.requires if not available(m)] + programs


def check_installed(spec: BackendSpec) -> None:
    """Raise the pip line of what ``spec`` needs and lacks."""
    missing = missing_modules(spec)
    if missing:
        raise MissingDependency(
            f"backend '{spec.name}' needs {', '.join(missing)}", hint=f"pip install 'razordeploy[{spec.extra}]'"
        )
