"""GML's words for search spaces: ``Categorical`` and ``Int``, in ``search_space`` and ``resize_process``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from razordeploy.compress.nas.supernets.ranges import Choices
from razordeploy.errors import RecipeError, nearest

_KEYS = {
    "Categorical": ("data", "default", "key"),
    "Int": ("lower", "upper", "step", "default", "key"),
}


def parse_entry(entry: Any, where: str) -> tuple[Choices, str | None]:
    """The values of one dimension, and the key that subnets name it by, if it has one.

    Args:
        entry: ``dict(type='Categorical', data=[3, 5], default=3, key='MB_kernel_size.1')``,
            ``dict(type='Int', lower=192, upper=289, step=32)``, whose upper end is not among the values, or a value.
        where: for messages.

    Raises:
        RecipeError: another type, an unknown or missing key, no value, or a default that is none of the values.
    """
    if isinstance(entry, int) and not isinstance(entry, bool):
        return Choices((entry,)), None
    if not isinstance(entry, Mapping):
        raise RecipeError(f"{where}: expected dict(type='Categorical', data=[...]) or an integer, got {entry!r}")
    kind = str(entry.get("type")).removeprefix("gml.")
    if kind not in _KEYS:
        raise RecipeError(f"{where}: unknown type '{kind}'", hint=nearest(kind, _KEYS))
    for key in entry:
        if key not in (*_KEYS[kind], "type"):
            raise RecipeError(f"{where}: {kind} has no '{key}'", hint=nearest(str(key), _KEYS[kind]))
    needed = ("data",) if kind == "Categorical" else ("lower", "upper")
    missing = [key for key in needed if key not in entry]
    if missing:
        raise RecipeError(f"{where}: {kind} needs {' and '.join(missing)}")
    values = entry["data"] if kind == "Categorical" else range(entry["lower"], entry["upper"], entry.get("step", 1))
    found = Choices(int(value) for value in values)
    if not found:
        raise RecipeError(f"{where}: {kind} has no values")
    if entry.get("default") is not None and entry["default"] not in found:
        raise RecipeError(f"{where}: the default {entry['default']} is none of {list(found)}")
    return found, entry.get("key")


def parse_entries(entries: Any, where: str) -> tuple[list[Choices], list[str | None]]:
    """The values and keys of a list of entries.

    Raises:
        RecipeError: as of ``parse_entry``.
    """
    if isinstance(entries, str | Mapping) or not isinstance(entries, Sequence):
        raise RecipeError(f"{where}: expected a list with one entry a stage, got {type(entries).__name__}")
    pairs = [parse_entry(entry, f"{where}.{index}") for index, entry in enumerate(entries)]
    return [values for values, _ in pairs], [key for _, key in pairs]
