"""Group the operations of a graph by the modules they came from, so that eight hundred can be looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

LARGEST_BLOCK = 48
"""Operations; a larger block is taken apart where its modules allow it."""
MEAN_BLOCK = 8
"""Operations that the pieces of a block have on average, or it stays whole."""
_MEAN_PART = 3
_SMALL, _MERGED = 2, 12
"""Neighbours of up to so many operations share a line, up to so many in all."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Operations that follow each other in one module."""

    path: str
    """Dotted path; of several small modules, ``first … last``; empty for the model itself."""
    parts: tuple[range, ...]
    """Positions of its operations, cut where a module below begins."""

    @property
    def positions(self) -> range:
        """Positions of all its operations."""
        return range(self.parts[0].start, self.parts[-1].stop)


def blocks(paths: Sequence[str], largest: int = LARGEST_BLOCK, mean: int = MEAN_BLOCK) -> list[Block]:
    """Cut a sequence of module paths into blocks.

    Args:
        paths: for every operation, in execution order, the dotted path of its module.
        largest: see ``LARGEST_BLOCK``.
        mean: see ``MEAN_BLOCK``.

    Returns:
        Blocks in order; together they hold every position once.
    """
    found = list(_split("", range(len(paths)), paths, 0, (largest, mean)))
    return [_block(group, paths) for group in _merged(found)]


def _split(
    prefix: str, span: range, paths: Sequence[str], depth: int, limits: tuple[int, int]
) -> Iterator[tuple[str, range]]:
    if not span:
        return
    largest, mean = limits
    children = list(_children(span, paths, depth))
    small = len(span) <= largest or len(span) < mean * len(children)
    if len(children) == 1 and children[0][0] != prefix:
        yield from _split(children[0][0], span, paths, depth + 1, limits)
    elif len(children) == 1 or (depth and small):
        yield prefix, span
    else:
        for path, part in children:
            yield from _split(path, part, paths, depth + 1, limits)


def _children(span: range, paths: Sequence[str], depth: int) -> Iterator[tuple[str, range]]:
    """Runs of equal path down to ``depth`` + 1 components; what has no such component keeps its own path."""
    for path, run in groupby(span, key=lambda i: ".".join(paths[i].split(".")[: depth + 1])):
        positions = list(run)
        yield path, range(positions[0], positions[-1] + 1)


def _merged(found: list[tuple[str, range]]) -> Iterator[list[tuple[str, range]]]:
    group: list[tuple[str, range]] = []
    for path, span in found:
        held = sum(len(s) for _, s in group)
        small = len(span) <= _SMALL and all(len(s) <= _SMALL for _, s in group)
        if group and not (small and held + len(span) <= _MERGED):
            yield group
            group = []
        group.append((path, span))
    if group:
        yield group


def _block(group: list[tuple[str, range]], paths: Sequence[str]) -> Block:
    names = [path for path, _ in group if path]
    if len(group) > 1:
        path = f"{names[0]} … {names[-1]}" if len(names) > 1 else f"{names[0]} …"
        return Block(path=path, parts=tuple(span for _, span in group))
    path, span = group[0]
    depth = len(path.split(".")) if path else 0
    parts = [part for _, part in _children(span, paths, depth)]
    if len(parts) == 1 or len(span) < _MEAN_PART * len(parts):
        parts = [span]
    return Block(path=path, parts=tuple(parts))
