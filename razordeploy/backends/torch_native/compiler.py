"""Compile an exported program into an AOTInductor package, quietly and away from the user's folders."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import fx

from razordeploy.errors import BackendError, MissingDependency

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_NOISY = tuple(f"torch.{name}" for name in ("export", "_export", "_dynamo", "_inductor", "_functorch", "fx", "utils"))


def compile_package(
    module: fx.GraphModule,
    inputs: tuple[torch.Tensor, ...],
    dynamic: tuple[bool, ...],
    path: Path,
    on_graph: Callable[[fx.Graph], None],
) -> None:
    """Export ``module`` and compile it into the ``.pt2`` file ``path``.

    Args:
        module: takes ``inputs``, returns a flat tuple.
        inputs: example tensors; their batch is at least two where it is dynamic.
        dynamic: for each input, whether axis 0 is the batch and may vary.
        path: the package.
        on_graph: called with the graph that is about to be turned into code.

    Raises:
        MissingDependency: there is no C++ compiler.
        BackendError: export or compilation failed.
    """
    _require_compiler()
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} if d else None for d in dynamic)
    options: dict[str, Any] = {
        "freezing": True,
        "max_autotune": False,
        # The engine's number of threads is chosen when it runs, not here.
        "cpp.dynamic_threads": True,
        "compile_threads": 1,
        "fx_graph_cache": False,
        "post_grad_custom_post_pass": on_graph,
    }
    if hasattr(torch._inductor.config.aot_inductor, "enable_line_tables"):  # not in every torch
        # Debug information would double and triple the package.
        options["aot_inductor.enable_line_tables"] = False
    try:
        with quiet(), _own_cache(), torch.no_grad(), torch._inductor.config.patch(options):
            program = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    except Exception as error:  # the compiler raises whatever its parts raise
        raise BackendError(f"AOTInductor cannot compile the graph: {_first_line(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's logs and warnings off the user's screen; failures are reported by us."""
    before = {name: logging.getLogger(name).level for name in _NOISY}
    try:
        for name in _NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _require_compiler() -> None:
    from torch._inductor import exc
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise MissingDependency(
            "torch_native compiles C++ and found no compiler", hint="apt install g++, or name one in the variable CXX"
        ) from error


@contextmanager
def _own_cache() -> Iterator[None]:
    """Use a folder that goes with the process, unless the user has named one."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    before = os.environ.get(_CACHE)
    # Torch writes its own choice into the variable as soon as it looks for it.
    if before not in (None, default_cache_dir()):
        yield
        return
    os.environ[_CACHE] = _process_cache()
    try:
        yield
    finally:
        del os.environ[_CACHE]


@cache
def _process_cache() -> str:
    folder = tempfile.mkdtemp(prefix="razordeploy_inductor_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
