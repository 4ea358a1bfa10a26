"""Find backends by name, without importing an engine until one is used."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from razordeploy.config.backend_spec import BackendSpec, load_backend_spec
from razordeploy.config.paths import backend_configs_dir
from razordeploy.errors import BackendError, MissingDependency, RazorDeployError, UsageError, nearest
from razordeploy.lazy import available

if TYPE_CHECKING:
    from razordeploy.backends.base import Backend  # loads torch, which the list of names does not need

BUILT_IN = ("openvino", "onnxruntime", "torch_native", "tensorrt", "academic")
ENTRY_POINTS = "razordeploy.backends"


def backend_names() -> tuple[str, ...]:
    """Names of the built-in backends, then of those that other packages register."""
    outside = (point.name for point in entry_points(group=ENTRY_POINTS))
    return tuple(dict.fromkeys((*BUILT_IN, *outside)))


def check_names(names: Iterable[str]) -> None:
    """Refuse a name that no backend has, without loading one.

    Raises:
        UsageError: no such backend; names the nearest.
    """
    known = backend_names()
    for name in names:
        if name not in known:
            raise UsageError(f"unknown backend '{name}'", hint=nearest(name, known))


def find_backend(name: str) -> Backend:
    """Return the backend called ``name``.

    Raises:
        UsageError: no such backend; names the nearest.
        MissingDependency: a package it needs is not installed; the text is the pip line.
        BackendError: another package's backend cannot be loaded.
    """
    check_names([name])
    if name in BUILT_IN:
        # Checked before the import, so that the answer is the pip line and not an ImportError.
        check_installed(load_backend_spec(backend_configs_dir() / f"{name}.yaml"))
        backend: Backend = importlib.import_module(f"razordeploy.backends.{name}.backend").BACKEND
        return backend
    outside = _load(next(point for point in entry_points(group=ENTRY_POINTS) if point.name == name))
    check_installed(outside.spec)
    return outside


def _load(point: EntryPoint) -> Backend:
    package = point.dist.name if point.dist is not None else point.module
    what = f"backend '{point.name}' of the package '{package}'"
    try:
        found = point.load()
    except RazorDeployError:
        raise
    except ModuleNotFoundError as error:
        lacks = error.name or str(error)
        if f"{point.module}.".startswith(f"{lacks}."):
            raise BackendError(
                f"{what} cannot be loaded: it has no module '{lacks}'", hint=f"pip install --force-reinstall {package}"
            ) from error
        top = lacks.partition(".")[0]
        raise MissingDependency(f"{what} needs '{top}'", hint=f"pip install {top}") from error
    except Exception as error:
        raise BackendError(f"{what} cannot be loaded: {type(error).__name__}: {error}") from error
    from razordeploy.backends.base import Backend

    if not isinstance(found, Backend):
        raise BackendError(f"{what}: expected a Backend at {point.value}, got {type(found).__name__}")
    return found


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
