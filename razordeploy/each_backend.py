"""Several backends in one run: what one of them lacks or gets wrong does not cost the engines of the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from razordeploy.artifact import Artifact
from razordeploy.backends.base import Backend
from razordeploy.backends.registry import find_backend
from razordeploy.errors import BackendError, InternalError, MissingDependency, RazorDeployError
from razordeploy.job import PTQResult

Made = tuple[Artifact, dict[str, Any]]
"""An engine and its entry in the report."""


def open_backends(names: Sequence[str]) -> tuple[list[Backend], dict[str, RazorDeployError]]:
    """Find every backend once; those that cannot be had come back as errors by name.

    Raises:
        RazorDeployError: none of them can be had.
    """
    found: list[Backend] = []
    errors: dict[str, RazorDeployError] = {}
    for name in dict.fromkeys(names):
        try:
            found.append(find_backend(name))
        except (MissingDependency, BackendError) as error:
            errors[name] = error
    if not found:
        raise _all_failed(errors)
    return found, errors


def make_each(backends: Sequence[Backend], result: PTQResult, make: Callable[[Backend], Made]) -> None:
    """Call ``make`` for every backend and put what it returns, or why it failed, into ``result``.

    Raises:
        RazorDeployError: no backend made an engine.
    """
    for backend in backends:
        try:
            artifact, entry = make(backend)
        except RazorDeployError as error:
            result.errors[backend.name] = error
            continue
        except MemoryError:
            raise
        except Exception as mistake:
            # A mistake in one backend does not cost the engines of the others; it is reported, and fails the run.
            result.errors[backend.name] = InternalError(mistake)
            continue
        result.artifacts[backend.name] = artifact
        result.backends[backend.name] = entry
    if not result.artifacts:
        raise _all_failed(result.errors)
    for name, failed in result.errors.items():
        result.backends[name] = {"passed": False, "error": str(failed), "exit_code": failed.exit_code}


def _all_failed(errors: Mapping[str, RazorDeployError]) -> RazorDeployError:
    """The error of a run that made nothing: the worst one, with the others' texts."""
    worst = max(errors.values(), key=lambda error: error.exit_code)
    if len(errors) == 1:
        return worst
    text = "; ".join(f"{name}: {error}" for name, error in errors.items())
    combined = type(worst).__new__(type(worst))
    RazorDeployError.__init__(combined, text)
    combined.__cause__ = worst
    return combined


class Timer:
    """Wall-clock seconds by step; a step that comes twice adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time the block as ``step``, whether or not it ends well."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start
