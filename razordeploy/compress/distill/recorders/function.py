"""Recorders of functions, by the path where they are used."""

from __future__ import annotations

from typing import Any

from razordeploy.compress.distill.interception import Call, intercept, release
from razordeploy.compress.distill.python_path import find_function
from razordeploy.compress.distill.recorders.base import BaseRecorder, arguments


class FunctionOutputsRecorder(BaseRecorder):
    """Keeps what a function returns.

    Args:
        source: ``pkg.module.function``, where ``pkg.module`` is the module that *calls* the function: a function that
            was imported there by name is another attribute than the one where it is defined.

    Raises:
        RecipeError: there is no such function; names the nearest.
    """

    noun = "function"

    def __init__(self, source: str) -> None:
        super().__init__(source)
        find_function(source, type(self).__name__)

    def start(self) -> None:
        """Stand before the function."""
        intercept(*find_function(self.source, type(self).__name__), self.record)

    def stop(self) -> None:
        """Step aside."""
        release(*find_function(self.source, type(self).__name__), self.record)

    def record(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call and keep the outputs."""
        outputs = call(*args, **kwargs)
        self.keep(outputs)
        return outputs


class FunctionInputsRecorder(FunctionOutputsRecorder):
    """Keeps what a function is called with: a tuple in the order of its parameters, defaults filled in.

    Args:
        source: as for ``FunctionOutputsRecorder``.
    """

    def record(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Keep the arguments and call."""
        module, name = find_function(self.source, type(self).__name__)
        self.keep(arguments(getattr(module, name), args, kwargs))
        return call(*args, **kwargs)
