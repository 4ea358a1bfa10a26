"""``data = dict(type='pkg.mod:fn', ...)``: data from the user's own function."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from razordeploy.config.importing import import_from
from razordeploy.data.base import Source, check_split, digest
from razordeploy.data.convert import as_tensor, is_target, split_item
from razordeploy.errors import DataError, RecipeError


class PythonSource(Source):
    """What ``pkg.mod:fn(**kwargs)`` returns: a map-style ``Dataset``, or an iterable of (inputs, target).

    ``fn`` gets ``split='train'`` or ``'test'`` where its signature has that name. An iterable is read into memory
    once; its items are single samples (target a number) or batches (target (N,)). Modules in ``folder``, that of the
    recipe, come before installed ones.
    """

    def __init__(self, target: str, kwargs: dict[str, Any], split: str = "test", folder: Path | None = None) -> None:
        check_split(split)
        self.target, self.kwargs, self.split = target, kwargs, split
        function = import_function(target, folder or Path())
        if "split" in inspect.signature(function).parameters:
            kwargs = {**kwargs, "split": split}
        else:
            warnings.warn(
                f"{target} takes no argument 'split': calibration and evaluation get the same samples", stacklevel=2
            )
        self._source_text = _source_text(function)
        try:
            inspect.signature(function).bind(**kwargs)
        except TypeError as exc:
            raise RecipeError(f"data: {target} cannot be called with {sorted(kwargs)}: {exc}") from exc
        result = function(**kwargs)
        self._items = result if _is_map_style(result) else _samples(result, target)
        if len(self._items) == 0:
            raise DataError(f"{target} returned no sample for the {split} split")

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        inputs, label = split_item(self._items[index], f"{self.target}[{index}]")
        return (inputs[0] if len(inputs) == 1 else inputs), (-1 if label is None else int(label))

    def describe(self) -> str:
        """One line: which function, how many."""
        return f"{self.target}, {self.split}: {len(self):,} samples"

    def fingerprint(self) -> str:
        """Identity of the function's name, source text, arguments and sample count (what it reads is not seen)."""
        config = {"type": self.target, "kwargs": self.kwargs, "split": self.split, "source": self._source_text}
        return digest(config, [("n", len(self))])


def import_function(target: str, folder: Path) -> Callable[..., Any]:
    """Import ``pkg.mod:fn``, of ``folder`` if it is there.

    Raises:
        RecipeError: the text has no such form, or the module or the name does not exist.
    """
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise RecipeError(f"expected 'package.module:function', got {target!r}")
    try:
        module = import_from(module_name, folder)
    except ModuleNotFoundError as exc:
        # A missing import inside the user's module is that module's error and keeps its own traceback.
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise
        hint = f"looked in {folder.resolve()} and in what is installed"
        raise RecipeError(f"cannot import {module_name!r} for {target!r}", hint=hint) from exc
    function = getattr(module, name, None)
    if not callable(function):
        found = "no such name" if function is None else type(function).__name__
        raise RecipeError(f"expected a function {name!r} in {module.__file__}, found {found}")
    return function


def _is_map_style(value: Any) -> bool:
    # A tuple or list of (inputs, target) may be batches, so only real data sets are taken as they are.
    return hasattr(value, "__getitem__") and hasattr(value, "__len__") and not isinstance(value, (list, tuple, dict))


def _samples(result: Any, target: str) -> list[tuple[Any, Any]]:
    if not isinstance(result, Iterable) or isinstance(result, (str, bytes, dict)):
        found = type(result).__name__
        raise DataError(f"expected an iterable of (inputs, target) or a Dataset from {target}, got {found}")
    samples: list[tuple[Any, Any]] = []
    for index, item in enumerate(result):
        where = f"{target}[{index}]"
        if not isinstance(item, (tuple, list)) or len(item) != 2 or not is_target(item[1]):
            raise DataError(f"expected (inputs, target) from {where}, got {type(item).__name__}")
        inputs, label = split_item(item, where)
        if label is not None and label.ndim == 1:
            if any(x.ndim == 0 or len(x) != len(label) for x in inputs):
                raise DataError(f"expected {len(label)} samples for {len(label)} targets in {where}")
            samples += [(tuple(x[i] for x in inputs), label[i]) for i in range(len(label))]
        else:
            samples.append((inputs, as_tensor(label, where)))
    return samples


def _source_text(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""
