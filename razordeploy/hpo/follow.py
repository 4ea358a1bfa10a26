"""Reading what other processes are still writing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


class FollowedFiles:
    """Files that match a pattern, read line by line as they grow."""

    def __init__(self, pattern: str | None, base: Path) -> None:
        self._pattern = pattern
        self._base = base
        self._offsets: dict[Path, int] = {}

    def read(self, take: Callable[[str], None]) -> None:
        """Hand every line that is new and complete to ``take``."""
        if self._pattern is None:
            return
        path = Path(self._pattern)
        base, pattern = (
            (Path(path.anchor), str(path.relative_to(path.anchor)))
            if path.is_absolute()
            else (
                self._base,
                self._pattern,
            )
        )
        for file in sorted(base.glob(pattern)):
            for line in new_lines(file, self._offsets):
                take(line)


def new_lines(file: Path, offsets: dict[Path, int]) -> list[str]:
    """The complete lines of ``file`` behind ``offsets[file]``, which is moved on."""
    try:
        with file.open("rb") as stream:
            stream.seek(offsets.get(file, 0))
            content = stream.read()
    except FileNotFoundError:
        return []
    whole = content[: content.rfind(b"\n") + 1]
    offsets[file] = offsets.get(file, 0) + len(whole)
    return whole.decode("utf-8", "replace").splitlines()


def json_lines(file: Path, offsets: dict[Path, int]) -> list[dict[str, Any]]:
    """New lines of a file of JSON objects; a broken one is passed over."""
    found = []
    for line in new_lines(file, offsets):
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def lookup(content: Mapping[str, Any], name: str) -> float | None:
    """The number that a dotted name means: ``a.b`` is the key ``a.b``, or the key ``b`` of ``a``."""
    value = content.get(name)
    if value is None and "." in name:
        for index in [i for i, letter in enumerate(name) if letter == "."]:
            inner = content.get(name[:index])
            if isinstance(inner, Mapping):
                value = lookup(inner, name[index + 1 :])
                if value is not None:
                    break
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
