"""What all recorders share."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from torch import Tensor, nn

from razordeploy.errors import ModelError

Self = TypeVar("Self", bound="BaseRecorder")


class BaseRecorder:
    """A context manager that keeps intermediate results, one record per call of its source.

    Records are kept until the next ``with`` block or ``reset_data_buffer()``. Nothing is hooked outside the block.

    Args:
        source: what is recorded; see the subclass.
    """

    noun = "recorder"

    def __init__(self, source: str) -> None:
        self._source = source
        self._records: list[tuple[Any, tuple[int, ...]]] = []
        self._initialized = False

    @property
    def source(self) -> str:
        """What is recorded."""
        return self._source

    @property
    def data_buffer(self) -> list[Any]:
        """Every record since the last ``with`` began, in the order of the calls."""
        return [value for value, _ in self._records]

    def initialize(self, model: nn.Module | None = None) -> None:
        """Find the source, in ``model`` for recorders of modules and parameters.

        Raises:
            ModelError: ``model`` is missing, or has no such source.
        """
        self.prepare_from_model(model)
        self._initialized = True

    def prepare_from_model(self, model: nn.Module | None) -> None:
        """Check ``source`` against ``model``; recorders of functions have no need of one."""

    @abstractmethod
    def start(self) -> None:
        """Begin to record."""

    @abstractmethod
    def stop(self) -> None:
        """Undo ``start``."""

    def keep(self, value: Any) -> None:
        """Add a record."""
        self._records.append((value, _versions(value)))

    def reset_data_buffer(self) -> None:
        """Forget all records."""
        self._records = []

    def detach(self) -> None:
        """Let the records hold on to no graph."""
        self._records = [(_detached(value), versions) for value, versions in self._records]

    def get_record_data(self, record_idx: int = 0, data_idx: int | None = None) -> Any:
        """One record, or one item of it.

        Args:
            record_idx: which call, in the order of the calls.
            data_idx: item of a record that is a tuple or list; None: all of it.

        Raises:
            ModelError: there is no such record or item, or it was changed in place after it was recorded.
        """
        count = len(self._records)
        if not -count <= record_idx < count:
            if count == 0:
                raise ModelError(
                    f"{self.noun} '{self.source}' was never called in this forward pass, so there is nothing recorded",
                    hint="record what the model calls in training",
                )
            raise ModelError(
                f"{self.noun} '{self.source}' was called {count} time{'s' * (count > 1)}, got record_idx={record_idx}"
            )
        value, versions = self._records[record_idx]
        if _versions(value) != versions:
            raise ModelError(
                f"what {self.noun} '{self.source}' gave was changed in place after it was recorded",
                hint="give the module that follows it inplace=False, or record an earlier one",
            )
        return value if data_idx is None else self._item(value, data_idx)

    def _item(self, value: Any, data_idx: int) -> Any:
        if not isinstance(value, tuple | list):
            raise ModelError(
                f"{self.noun} '{self.source}': data_idx={data_idx} needs a tuple or list, got {type(value).__name__}"
            )
        if not -len(value) <= data_idx < len(value):
            raise ModelError(f"{self.noun} '{self.source}' recorded {len(value)} items, got data_idx={data_idx}")
        return value[data_idx]

    def __enter__(self: Self) -> Self:
        if not self._initialized:
            raise ModelError(f"{self.noun} '{self.source}' is not ready", hint="call initialize() before 'with'")
        self.reset_data_buffer()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """What ``function(*args, **kwargs)`` gets, in the order of its parameters, with defaults filled in.

    Item i is the i-th parameter, however the caller passed it; those of ``*args`` and ``**kwargs`` stand in their
    place, one by one.
    """
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):
        # No signature (a builtin), or a call that fails anyway.
        return (*args, *kwargs.values())
    bound.apply_defaults()
    found: list[Any] = []
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            found.extend(value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            found.extend(value.values())
        else:
            found.append(value)
    return tuple(found)


def _versions(value: Any) -> tuple[int, ...]:
    """How often each tensor in ``value`` has been written to."""
    if isinstance(value, Tensor):
        return () if value.is_inference() else (value._version,)
    if isinstance(value, tuple | list):
        return tuple(version for item in value for version in _versions(item))
    return ()


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    return type(value)(map(_detached, value)) if type(value) in (tuple, list) else value
