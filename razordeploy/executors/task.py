"""A task as bytes: a call that is sent to another process, and what comes back."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from multiprocessing import spawn
from pathlib import Path
from typing import Any

from razordeploy.errors import UsageError

_LOADING: list[str] = []


def pack(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """The call as bytes.

    Raises:
        UsageError: it cannot be pickled (a lambda, a function inside a function, an open file).
    """
    try:
        return pickle.dumps((function, args, kwargs), protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        name = getattr(function, "__qualname__", repr(function))
        hint = "give a function of a module, and arguments that pickle"
        raise UsageError(f"{name} cannot be sent to another process: {error}", hint=hint) from error


def run_packed(call: bytes) -> bytes:
    """Run a packed call, and pack what it returned or raised; raises nothing but what ends the process."""
    try:
        function, args, kwargs = pickle.loads(call)
        return _packed(True, function(*args, **kwargs))
    except Exception as error:
        return _packed(False, error)


def result_of(outcome: bytes) -> Any:
    """Return what the call returned, or raise what it raised."""
    fine, value = pickle.loads(outcome)
    if not fine:
        raise value
    return value


def _packed(fine: bool, value: Any) -> bytes:
    try:
        done = pickle.dumps((fine, value), protocol=pickle.HIGHEST_PROTOCOL)
        pickle.loads(done)
    except Exception as error:
        what = "raised" if not fine else "returned"
        text = f"a task {what} a {type(value).__name__} that cannot be sent back: {value if not fine else error}"
        return pickle.dumps((False, UsageError(text)))
    return done


def main_module(call: bytes) -> str:
    """Name the running script where the call needs something that it defines; empty otherwise."""
    if b"__main__" not in call:
        return ""
    main = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return f"init_main_from_name={name}"
    path = getattr(main, "__file__", None)
    return f"init_main_from_path={Path(path).resolve()}" if path else ""


def extend_path(paths: Sequence[str]) -> None:
    """Let this process find the modules that its parent finds, after its own."""
    sys.path.extend(path for path in paths if path and path not in sys.path)


def load_main(named: str) -> None:
    """Let this process see what the script that ``main_module`` named defines, as multiprocessing's workers do."""
    key, _, value = named.partition("=")
    _LOADING.append(named)
    try:
        spawn.prepare({key: value})
    finally:
        _LOADING.pop()


def loading_main() -> bool:
    """Tell whether this is a worker that is just loading its parent's script."""
    return bool(_LOADING)
