"""Which mutables a function looks at, and copies of functions that look at copies of them."""

from __future__ import annotations

import copy
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.base import BaseMutable


def trace_sources(*functions: Callable[..., Any] | None) -> tuple[BaseMutable, ...]:
    """The mutables with a search space of their own that functions refer to, each once, in an order that
    the functions alone decide (of a closure, the alphabet).

    Looks into closures, default and partial arguments, bound objects, and what a bound object with a true ``derives``
    holds.
    """
    found: dict[int, BaseMutable] = {}
    # Holds what it has seen: the id of a temporary list would be given to the next one.
    seen: dict[int, object] = {}
    waiting: list[object] = [function for function in functions if function is not None]
    while waiting:
        value = waiting.pop(0)
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, BaseMutable):
            found.update({id(mutable): mutable for mutable in value.sources if id(mutable) not in found})
        else:
            waiting = _parts(value) + waiting
    return tuple(found.values())


def _parts(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, types.FunctionType):
        return [inspect.getclosurevars(value).nonlocals, value.__defaults__, value.__kwdefaults__]
    if isinstance(value, Closure):
        return [value.function]
    return [vars(value)] if getattr(value, "derives", False) else []


class Closure:
    """A local function whose deep copy refers to the copies of what the function refers to."""

    def __init__(self, function: types.FunctionType) -> None:
        self.function = function

    def __call__(self) -> Any:
        """What the function returns."""
        return self.function()

    def __deepcopy__(self, memo: dict[int, Any]) -> Closure:
        old = self.function
        cells = tuple(types.CellType(copy.deepcopy(cell.cell_contents, memo)) for cell in old.__closure__ or ())
        defaults = copy.deepcopy(old.__defaults__, memo)
        new = types.FunctionType(old.__code__, old.__globals__, old.__name__, defaults, cells)
        new.__kwdefaults__ = copy.deepcopy(old.__kwdefaults__, memo)
        return Closure(new)

    def __reduce__(self) -> NoReturn:
        raise ModelError(
            f"a derived mutable with the local function '{self.function.__qualname__}' cannot be pickled",
            hint="derive it with *, //, + or a derive_* method, or pass a bound method of an object that holds the "
            "sources",
        )


def copyable(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, wrapped where a plain deep copy would go on looking at the original mutables."""
    if isinstance(function, types.FunctionType) and "<locals>" in function.__qualname__:
        return Closure(function)
    return function
