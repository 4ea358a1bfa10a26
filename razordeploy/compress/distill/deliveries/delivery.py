"""Deliveries of what functions and methods return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from types import TracebackType
from typing import Any, TypeVar

from razordeploy.compress.distill.interception import Call, intercept, release
from razordeploy.compress.distill.python_path import find_function, find_method
from razordeploy.errors import ModelError, RecipeError

Self = TypeVar("Self", bound="DistillDelivery")


class DistillDelivery(ABC):
    """A context manager that keeps outputs in one ``with`` block and hands them out, first in, first out, in the next.

    Args:
        max_keep_data: most outputs that are kept between the two blocks.
    """

    def __init__(self, max_keep_data: int) -> None:
        if isinstance(max_keep_data, bool) or not isinstance(max_keep_data, int) or max_keep_data < 1:
            raise RecipeError(f"{type(self).__name__}: expected max_keep_data of 1 or more, got {max_keep_data!r}")
        self.max_keep_data = max_keep_data
        self.data_queue: deque[Any] = deque()
        self._override_data = False

    @property
    def override_data(self) -> bool:
        """False: call and keep the outputs; True: do not call, return what was kept.

        Going back to False begins a new round: what was left over is dropped, and is not handed out a step later.
        """
        return self._override_data

    @override_data.setter
    def override_data(self, override: bool) -> None:
        if self._override_data and not override:
            self.data_queue.clear()
        self._override_data = override

    @property
    @abstractmethod
    def path(self) -> str:
        """What is delivered."""

    @abstractmethod
    def place(self) -> tuple[Any, str]:
        """Owner and name of what is delivered."""

    def deliver(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the outputs of ``call``, or of an earlier one.

        Raises:
            ModelError: more outputs than ``max_keep_data``, or none left.
        """
        if self.override_data:
            if not self.data_queue:
                raise ModelError(
                    f"{type(self).__name__} '{self.path}': asked for more outputs than were kept",
                    hint="both models have to call it equally often",
                )
            return self.data_queue.popleft()
        if len(self.data_queue) >= self.max_keep_data:
            raise ModelError(
                f"{type(self).__name__} '{self.path}' was called more than max_keep_data={self.max_keep_data} times",
                hint="set max_keep_data to the number of calls in one forward pass",
            )
        outputs = call(*args, **kwargs)
        self.data_queue.append(outputs)
        return outputs

    def __enter__(self: Self) -> Self:
        intercept(*self.place(), self.deliver)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        release(*self.place(), self.deliver)


class FunctionOutputsDelivery(DistillDelivery):
    """Delivers what a function returns.

    Args:
        func_path: ``pkg.module.function`` where ``pkg.module`` is the module that calls it.
        max_keep_data: calls in one forward pass.

    Raises:
        RecipeError: there is no such function; names the nearest.
    """

    def __init__(self, func_path: str, max_keep_data: int) -> None:
        super().__init__(max_keep_data)
        self.func_path = func_path
        self.place()

    @property
    def path(self) -> str:
        """The function's path."""
        return self.func_path

    def place(self) -> tuple[Any, str]:
        """Module and name of the function."""
        return find_function(self.func_path, type(self).__name__)


class MethodOutputsDelivery(DistillDelivery):
    """Delivers what a method returns, whichever instance is asked.

    Args:
        method_path: ``pkg.module.Class.method``.
        max_keep_data: calls in one forward pass.

    Raises:
        RecipeError: there is no such method; names the nearest.
    """

    def __init__(self, method_path: str, max_keep_data: int) -> None:
        super().__init__(max_keep_data)
        self.method_path = method_path
        self.place()

    @property
    def path(self) -> str:
        """The method's path."""
        return self.method_path

    def place(self) -> tuple[Any, str]:
        """Class and name of the method."""
        return find_method(self.method_path, type(self).__name__)
