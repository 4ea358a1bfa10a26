"""Standing between a function and its callers for a while, and leaving no trace."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

Call = Callable[..., Any]
Interceptor = Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]
"""``interceptor(call, args, kwargs) -> output``; ``call(*args, **kwargs)`` is the function, or the next one in line."""


class _Place:
    """One attribute of a module or class, and who stands before it, the first to come outermost."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name = owner, name
        self.raw = inspect.getattr_static(owner, name)
        # An inherited method has to be inherited again afterwards.
        self.own = name in vars(owner)
        self.interceptors: list[Interceptor] = []
        wrapper = type(self.raw) if isinstance(self.raw, staticmethod | classmethod) else None
        function = self.raw.__func__ if wrapper else self.raw
        place = self

        @functools.wraps(function)
        def intercepted(*args: Any, **kwargs: Any) -> Any:
            call = function
            for interceptor in reversed(place.interceptors):
                call = functools.partial(_through, interceptor, call)
            return call(*args, **kwargs)

        setattr(owner, name, wrapper(intercepted) if wrapper else intercepted)

    def restore(self) -> None:
        if self.own:
            setattr(self.owner, self.name, self.raw)
        else:
            delattr(self.owner, self.name)


_PLACES: dict[tuple[int, str], _Place] = {}


def intercept(owner: Any, name: str, interceptor: Interceptor) -> None:
    """Let ``interceptor`` see every call of ``owner.name`` from now on, and what those after it make of it."""
    place = _PLACES.get((id(owner), name))
    if place is None:
        place = _PLACES[id(owner), name] = _Place(owner, name)
    place.interceptors.append(interceptor)


def release(owner: Any, name: str, interceptor: Interceptor) -> None:
    """Undo ``intercept``; with the last one gone ``owner`` is as it was before the first. Any order will do."""
    place = _PLACES[id(owner), name]
    place.interceptors.remove(interceptor)
    if not place.interceptors:
        del _PLACES[id(owner), name]
        place.restore()


def _through(interceptor: Interceptor, call: Call, *args: Any, **kwargs: Any) -> Any:
    return interceptor(call, args, kwargs)
