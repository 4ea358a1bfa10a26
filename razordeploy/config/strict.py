"""Checks that give a wrong value in a recipe one line: what was expected, what was found, and where."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from razordeploy.errors import RecipeError, nearest


@dataclass(frozen=True, kw_only=True)
class Section:
    """One dictionary of a recipe, and where it stands; every getter checks the type of what it returns."""

    values: Mapping[str, Any]
    file: str
    """Recipe the section was read from, for messages."""
    where: str
    """Dotted path inside the recipe, for messages."""

    @classmethod
    def of(cls, value: object, file: str, where: str, known: Iterable[str]) -> Section:
        """Check that ``value`` is a dictionary with no key outside ``known``."""
        if not isinstance(value, Mapping):
            raise RecipeError(f"{file}: expected a dict for '{where}', got {_show(value)}")
        known = tuple(known)
        for key in value:
            if key not in known:
                raise RecipeError(f"{file}: unknown key '{key}' in '{where}'", hint=nearest(str(key), known))
        return cls(values=value, file=file, where=where)

    def error(self, key: str, expected: str) -> RecipeError:
        """The error for a value that is not what was ``expected``."""
        return RecipeError(f"{self.file}: expected {expected} for '{self.where}.{key}', got {_show(self.values[key])}")

    def boolean(self, key: str) -> bool | None:
        """``True``, ``False``, or None when the key is absent."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.error(key, "True or False")
        return value

    def integer(self, key: str, *, low: int, high: int | None = None) -> int | None:
        """An integer in ``[low, high]``, or None when the key is absent."""
        value = self.values.get(key)
        if value is None:
            return None
        span = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
        if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
            raise self.error(key, span)
        return value

    def number(self, key: str, *, low: float, high: float | None = None) -> float | None:
        """A finite number of at least ``low`` and at most ``high``, or None when the key is absent."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < float("inf"):
            raise self.error(key, f"a number of at least {low:g}")
        if high is not None and value > high:
            raise self.error(key, f"a number between {low:g} and {high:g}")
        return float(value)

    def string(self, key: str) -> str | None:
        """A string that is not empty, or None when the key is absent."""
        value = self.values.get(key)
        if value is not None and (not isinstance(value, str) or not value):
            raise self.error(key, "a string")
        return value

    def strings(self, key: str) -> tuple[str, ...] | None:
        """A list of strings, or None when the key is absent; a single string is a list of one."""
        value = self.values.get(key)
        if value is None:
            return None
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) and item for item in items):
            raise self.error(key, "a list of strings")
        return tuple(items)

    def patterns(self, key: str) -> tuple[str, ...]:
        """A list of module patterns (globs, or ``re:`` and a regular expression); empty when the key is absent."""
        found = self.strings(key) or ()
        for pattern in found:
            if pattern.startswith("re:"):
                check_regex(pattern[3:], self.file, f"{self.where}.{key}")
        return found


def check_regex(pattern: str, file: str, where: str) -> None:
    """Refuse a regular expression that does not compile."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise RecipeError(f"{file}: '{pattern}' in '{where}' is not a regular expression: {error}") from error


def _show(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
