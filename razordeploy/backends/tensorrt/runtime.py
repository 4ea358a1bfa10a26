"""TensorRT and CUDA as they are installed here, and what is missing of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from razordeploy.backends.tensorrt.spec import SPEC
from razordeploy.errors import BackendError, MissingDependency
from razordeploy.lazy import available, require

if TYPE_CHECKING:
    import tensorrt as trt

_MAJORS = (10, 11)
_HINT = "pip install 'razordeploy[tensorrt]' on a machine with an NVIDIA GPU"


def absent() -> MissingDependency | None:
    """Why no engine can be built or run here; None: it can."""
    missing = [module for module in SPEC.engine_requires if not available(module)]
    if missing:
        return MissingDependency(f"a TensorRT engine needs {', '.join(missing)}", hint=_HINT)
    try:
        version = tensorrt_version()
    except (ImportError, OSError) as error:
        return MissingDependency(f"TensorRT's libraries cannot be loaded: {error}", hint=_HINT)
    if int(version.partition(".")[0]) not in _MAJORS:
        return MissingDependency(f"expected TensorRT 10 or 11, found {version}", hint="pip install -U tensorrt")
    try:
        count = cuda(runtime().cudaGetDeviceCount())
    except (BackendError, ImportError, OSError, RuntimeError) as error:
        return MissingDependency(f"a TensorRT engine needs an NVIDIA GPU and its driver: {error}", hint=_HINT)
    return None if count else MissingDependency("a TensorRT engine needs an NVIDIA GPU; found none", hint=_HINT)


def tensorrt_version() -> str:
    """Version of the package, as in ``10.13.3.9``."""
    return str(require("tensorrt", extra="tensorrt").__version__)


def runtime() -> Any:
    """The CUDA runtime's Python bindings."""
    require("cuda", extra="tensorrt")
    return importlib.import_module("cuda.bindings.runtime")


def cuda(result: Any) -> Any:
    """What a CUDA call gives besides its status: nothing, one value or a tuple.

    Raises:
        BackendError: the status says that it failed.
    """
    status, *values = result
    if int(status) != 0:
        raise BackendError(f"CUDA: {getattr(status, 'name', status)}")
    return values[0] if len(values) == 1 else tuple(values)


def compute_capability() -> str:
    """The first GPU's, as in ``8.9``."""
    properties = cuda(runtime().cudaGetDeviceProperties(0))
    return f"{properties.major}.{properties.minor}"


def logger() -> tuple[trt.ILogger, list[str]]:
    """A logger for TensorRT that says nothing, and the list in which it keeps errors."""
    import tensorrt as trt

    errors: list[str] = []

    class Kept(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                errors.append(msg)

    return Kept(), errors


def last_error(errors: list[str]) -> str:
    """TensorRT's own last words."""
    return errors[-1] if errors else "no reason given"
