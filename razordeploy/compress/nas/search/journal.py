"""Every candidate that was evaluated, a line each, written as soon as it is known."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from razordeploy.compress.nas.search.scored import Scored
from razordeploy.storage import make_folder, storage_errors
from razordeploy.strict_json import jsonable

JOURNAL = "candidates.jsonl"
_FORMAT = "razordeploy-search"


class Journal:
    """Lines of JSON: a heading, then the candidates in the order they were finished.

    A journal whose heading has another ``identity`` (other weights, data or space) is of another search: it is kept
    under a free name, and a new one begun. A last line that a crash cut off is dropped.

    Args:
        path: the file.
        identity: what a score depends on, other than the candidate.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.identity = identity
        self.known: dict[str, Scored] = {}
        """Candidates by key."""
        self.kept_as: Path | None = None
        """Where the journal of another search was put."""
        make_folder(path.parent)
        with storage_errors(path):
            self._open()

    def _open(self) -> None:
        size = self._read() if self.path.exists() else 0
        if self.path.exists() and size == 0 and self.path.stat().st_size:
            self.kept_as = _free(self.path)
            self.path.rename(self.kept_as)
        if size:
            os.truncate(self.path, size)
        else:
            self._append({"format": _FORMAT, "identity": self.identity})

    def _read(self) -> int:
        """Read what is there; return the length of its whole lines, 0 where they are of another search."""
        size = 0
        for index, line in enumerate(self.path.read_bytes().splitlines(keepends=True)):
            entry = _parsed(line)
            if entry is None:
                break
            if index == 0:
                if entry.get("format") != _FORMAT or entry.get("identity") != self.identity:
                    return 0
            elif not entry.get("again"):
                scored = _scored(entry)
                self.known[scored.key] = scored
            size += len(line)
        return size

    def add(self, scored: Scored, *, again: bool = False) -> None:
        """Write a candidate.

        Args:
            scored: the candidate.
            again: it failed for a reason that lies outside of it, and is evaluated anew when the search goes on.
        """
        with storage_errors(self.path):
            self._append({**_entry(scored), **({"again": True} if again else {})})
        if not again:
            self.known[scored.key] = scored

    def _append(self, entry: dict[str, Any]) -> None:
        line = json.dumps(jsonable(entry), allow_nan=False) + "\n"
        with self.path.open("ab") as stream:
            stream.write(line.encode())


def _entry(scored: Scored) -> dict[str, Any]:
    entry: dict[str, Any] = {"subnet": scored.subnet, "score": scored.score, "costs": dict(scored.costs)}
    if scored.error is not None:
        entry["error"] = scored.error
    return {**entry, "seconds": round(scored.seconds, 4)}


def _scored(entry: dict[str, Any]) -> Scored:
    return Scored(
        subnet=entry["subnet"],
        score=entry["score"],
        costs=entry.get("costs", {}),
        error=entry.get("error"),
        seconds=entry.get("seconds", 0.0),
    )


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The line's entry; None where it was cut off."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _free(path: Path) -> Path:
    number = 1
    while path.with_name(f"{path.stem}.{number}{path.suffix}").exists():
        number += 1
    return path.with_name(f"{path.stem}.{number}{path.suffix}")
