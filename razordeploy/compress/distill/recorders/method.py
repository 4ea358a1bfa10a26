"""Recorders of methods, by the path of their class."""

from __future__ import annotations

import inspect
from typing import Any

from razordeploy.compress.distill.interception import Call, intercept, release
from razordeploy.compress.distill.python_path import find_method
from razordeploy.compress.distill.recorders.base import BaseRecorder, arguments


class MethodOutputsRecorder(BaseRecorder):
    """Keeps what a method returns, of every instance.

    Args:
        source: ``pkg.module.Class.method``; static and class methods will do.

    Raises:
        RecipeError: there is no such method; names the nearest.
    """

    noun = "method"

    def __init__(self, source: str) -> None:
        super().__init__(source)
        find_method(source, type(self).__name__)

    def start(self) -> None:
        """Stand before the method."""
        intercept(*find_method(self.source, type(self).__name__), self.record)

    def stop(self) -> None:
        """Step aside."""
        release(*find_method(self.source, type(self).__name__), self.record)

    def record(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call and keep the outputs."""
        outputs = call(*args, **kwargs)
        self.keep(outputs)
        return outputs


class MethodInputsRecorder(MethodOutputsRecorder):
    """Keeps what a method is called with, without ``self``: a tuple in the order of its parameters, defaults filled in.

    Args:
        source: as for ``MethodOutputsRecorder``.
    """

    def record(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Keep the arguments and call."""
        cls, name = find_method(self.source, type(self).__name__)
        raw = inspect.getattr_static(cls, name)
        function = raw.__func__ if isinstance(raw, staticmethod | classmethod) else raw
        found = arguments(function, args, kwargs)
        self.keep(found if isinstance(raw, staticmethod) else found[1:])
        return call(*args, **kwargs)
