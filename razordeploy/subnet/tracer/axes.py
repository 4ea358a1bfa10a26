"""The algebra of dimensions: ordered products and concatenations of named axes, refined and merged as a graph is read.

A dimension of a tensor is an :class:`Axis`. A *leaf* is a run of channels about which nothing more is known. When an
operator looks inside a dimension (a split, a reshape, a concatenation), leaves are bound to a structure:

- ``CAT``: parts one after another (concat, split);
- ``PROD``: a product, outer factor first (reshape, flatten, heads x head_dim);
- ``ZIP``: ``g`` rows of equal length interleaved (channel shuffle): position ``i * g + j`` is element ``i`` of row j;
- ``PART``: a contiguous part of a ``ZIP``, which cannot be cut into independent pieces.

Two relations hold between leaves: *same index* (they are one leaf, by union-find) and *same count* (they keep equally
many elements, each its own). Sizes are numbers and axes are shared, so cost follows the operators, not the channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

LEAF, CAT, PROD, ZIP, PART = "leaf", "cat", "prod", "zip", "part"
_MOST_PARTS = 1024
"""A dimension in more pieces than this is frozen: it is a permutation of channels, not a structure."""


class Axis:
    """A dimension, or a part of one. Compare by identity after :func:`find`."""

    __slots__ = ("kind", "link", "mates", "parts", "reason", "size", "start")

    def __init__(self, size: int, *, kind: str = LEAF, parts: Sequence[Axis] = (), start: int = 0) -> None:
        self.size = size
        self.kind = kind
        self.parts = tuple(parts)
        self.start = start
        self.link: Axis | None = None
        self.reason: str | None = None
        self.mates: list[Axis] = [self] if kind == LEAF else []
        """Leaves that keep equally many elements; one list shared by all of them."""

    def __repr__(self) -> str:
        axis = find(self)
        inner = f"({', '.join(map(repr, axis.parts))})" if axis.parts else ""
        return f"{axis.kind}{axis.size}{inner}{'!' if axis.reason else ''}"


def find(axis: Axis) -> Axis:
    """Return what ``axis`` has become."""
    while axis.link is not None:
        if axis.link.link is not None:
            axis.link = axis.link.link
        axis = axis.link
    return axis


def leaf(size: int, reason: str | None = None) -> Axis:
    """Return a new run of channels; a reason says why it can never shrink."""
    axis = Axis(size)
    axis.reason = reason if size > 1 else (reason or "there is only one")
    return axis


def leaves(axis: Axis) -> Iterator[Axis]:
    """Yield the leaves of ``axis``, repeats kept; of a ``PART``, those of the whole ``ZIP``."""
    stack = [axis]
    while stack:
        axis = find(stack.pop())
        if axis.kind == LEAF:
            yield axis
        else:
            stack.extend(reversed(axis.parts))


def is_frozen(axis: Axis) -> bool:
    """Tell whether no leaf of ``axis`` can shrink."""
    return all(part.reason for part in leaves(axis))


def freeze(axis: Axis, reason: str) -> None:
    """Keep every channel of ``axis``; the first reason given stays."""
    for part in leaves(axis):
        part.reason = part.reason or reason


def cat(parts: Sequence[Axis]) -> Axis:
    """Concatenate axes."""
    flat: list[Axis] = []
    for part in map(find, parts):
        flat.extend(map(find, part.parts) if part.kind == CAT else [part] if part.size else [])
    if len(flat) == 1:
        return flat[0]
    size = sum(part.size for part in flat)
    if all(part.kind == LEAF and part.reason for part in flat):
        return leaf(size, flat[0].reason if flat else "empty")
    joined = Axis(size, kind=CAT, parts=flat)
    if len(flat) > _MOST_PARTS:
        freeze(joined, "its channels are in more pieces than can be followed")
    return joined


def prod(factors: Sequence[Axis]) -> Axis:
    """Multiply axes, outer factor first; factors of size one vanish."""
    flat: list[Axis] = []
    for factor in map(find, factors):
        flat.extend(map(find, factor.parts) if factor.kind == PROD else [factor] if factor.size != 1 else [])
    if not flat:
        return leaf(1)
    if len(flat) == 1:
        return flat[0]
    size = math.prod(factor.size for factor in flat)
    if all(factor.kind == LEAF and factor.reason for factor in flat):
        return leaf(size, flat[0].reason)
    return Axis(size, kind=PROD, parts=flat)


def interleave(rows: Sequence[Axis]) -> Axis:
    """Interleave rows of equal length, which from now on keep equally many elements."""
    for row in rows[1:]:
        same_count(rows[0], row)
    if len(rows) == 1 or all(is_frozen(row) for row in rows):
        return rows[0] if len(rows) == 1 else leaf(sum(row.size for row in rows), "its rows are fixed")
    return Axis(sum(row.size for row in rows), kind=ZIP, parts=rows)


def split(axis: Axis, cuts: Sequence[int]) -> list[Axis]:
    """Cut ``axis`` at the positions ``cuts`` (increasing, none at either end)."""
    axis = find(axis)
    if not cuts:
        return [axis]
    bounds = [0, *cuts, axis.size]
    sizes = [stop - start for start, stop in zip(bounds, bounds[1:], strict=False)]
    if axis.kind == LEAF:
        return _split_leaf(axis, sizes)
    if axis.kind == CAT:
        return _split_cat(axis, bounds)
    if axis.kind in {ZIP, PART}:
        base = axis if axis.kind == ZIP else axis.parts[0]
        return [Axis(n, kind=PART, parts=(base,), start=axis.start + at) for at, n in zip(bounds, sizes, strict=False)]
    outer = find(axis.parts[0])
    inner = axis.size // outer.size
    if any(cut % inner for cut in cuts):
        freeze(axis, "it is cut across the factors of a reshape")
        return [leaf(n, "it is cut across the factors of a reshape") for n in sizes]
    return [prod([piece, *axis.parts[1:]]) for piece in split(outer, [cut // inner for cut in cuts])]


def _split_leaf(axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    if axis.reason:
        return [leaf(n, axis.reason) for n in sizes]
    mates = axis.mates
    pieces = {id(mate): [leaf(n) for n in sizes] for mate in mates}
    for mate in mates:
        mate.link = Axis(mate.size, kind=CAT, parts=pieces[id(mate)])
        for first, other in zip(pieces[id(axis)], pieces[id(mate)], strict=True):
            _join_counts(first, other)
        if mate.reason:
            freeze(mate, mate.reason)
    return pieces[id(axis)]


def _split_cat(axis: Axis, bounds: Sequence[int]) -> list[Axis]:
    groups: list[list[Axis]] = [[] for _ in bounds[1:]]
    at, group = 0, 0
    for part in axis.parts:
        stop = at + part.size
        inside = [b - at for b in bounds if at < b < stop]
        for piece in split(part, inside):
            groups[group].append(piece)
            at += piece.size
            while group < len(groups) - 1 and at >= bounds[group + 1]:
                group += 1
    return [cat(pieces) for pieces in groups]


def factor(axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    """Write ``axis`` as a product of factors of the given sizes, outer first."""
    if len(sizes) == 1:
        return [find(axis)]
    outer, rest = _factor_two(find(axis), sizes[0], math.prod(sizes[1:]))
    return [outer, *factor(rest, sizes[1:])]


def _factor_two(axis: Axis, outer: int, inner: int) -> tuple[Axis, Axis]:
    if outer == 1:
        return leaf(1), axis
    if inner == 1:
        return axis, leaf(1)
    if axis.kind == LEAF:
        return _factor_leaf(axis, outer, inner)
    if axis.kind == CAT:
        return _factor_cat(axis, outer, inner)
    if axis.kind == PROD:
        first, rest = find(axis.parts[0]), prod(axis.parts[1:])
        if first.size == outer:
            return first, rest
        if first.size % outer == 0:
            left, right = _factor_two(first, outer, first.size // outer)
            return left, prod([right, rest])
        if outer % first.size == 0:
            left, right = _factor_two(rest, outer // first.size, inner)
            return prod([first, left]), right
    reason = "it is reshaped across its factors"
    freeze(axis, reason)
    return leaf(outer, reason), leaf(inner, reason)


def _factor_leaf(axis: Axis, outer: int, inner: int) -> tuple[Axis, Axis]:
    if axis.reason:
        return leaf(outer, axis.reason), leaf(inner, axis.reason)
    first: tuple[Axis, Axis] | None = None
    for mate in axis.mates:
        pair = (leaf(outer), leaf(inner))
        mate.link = Axis(mate.size, kind=PROD, parts=pair)
        if mate.reason:
            freeze(mate, mate.reason)
        first = first or pair
        _join_counts(first[0], pair[0])
        _join_counts(first[1], pair[1])
    result = find(axis).parts
    return find(result[0]), find(result[1])


def _factor_cat(axis: Axis, outer: int, inner: int) -> tuple[Axis, Axis]:
    """Each part is whole rows of the product, or else the rows are cut out; either way all rows become one."""
    if all(part.size % inner == 0 for part in map(find, axis.parts)):
        pairs = [_factor_two(find(part), part.size // inner, inner) for part in axis.parts]
    else:
        pairs = [(leaf(1), row) for row in split(axis, list(range(inner, axis.size, inner)))]
    for _, row in pairs[1:]:
        unify(pairs[0][1], row)
    rows = [first for first, _ in pairs]
    counted = leaf(outer, "it counts rows that are tied together") if len(rows) == outer else cat(rows)
    return counted, find(pairs[0][1])


def unify(one: Axis, other: Axis) -> None:
    """Make two axes of one size the same: what goes from one goes, by index, from the other."""
    one, other = find(one), find(other)
    if one is other or one.size == 1:
        return
    if one.size != other.size:
        _freeze_both(one, other, f"sizes {one.size} and {other.size} meet")
    elif one.kind == LEAF:
        _bind(one, other)
    elif other.kind == LEAF:
        _bind(other, one)
    elif CAT in {one.kind, other.kind}:
        _pairwise(one, other, unify)
    elif one.kind == other.kind == PROD:
        for a, b in _common_factors(one, other):
            unify(a, b)
    elif one.kind == other.kind == ZIP and len(one.parts) == len(other.parts):
        for a, b in zip(one.parts, other.parts, strict=True):
            unify(a, b)
    elif not (one.kind == other.kind == PART and one.parts[0] is other.parts[0] and one.start == other.start):
        _freeze_both(one, other, "two different orders of channels meet")


def same_count(one: Axis, other: Axis) -> None:
    """Make two axes of one size keep equally many elements, each its own."""
    one, other = find(one), find(other)
    if one is other or one.size == 1:
        return
    if one.size != other.size:
        _freeze_both(one, other, f"sizes {one.size} and {other.size} have to stay equal")
    elif one.kind == other.kind == LEAF:
        _join_counts(one, other)
    elif PART in {one.kind, other.kind}:
        _same_count_of_part(one, other)
    elif CAT in {one.kind, other.kind}:
        _pairwise(one, other, same_count)
    elif PROD in {one.kind, other.kind}:
        for a, b in _common_factors(one, other):
            same_count(a, b)
    elif one.kind == other.kind == ZIP and len(one.parts) == len(other.parts):
        same_count(one.parts[0], other.parts[0])
    else:
        _freeze_both(one, other, "two different orders of channels have to stay equally wide")


def _same_count_of_part(one: Axis, other: Axis) -> None:
    """Rows of an interleaving are equally long: a part of as many elements as ``k`` rows counts as ``k`` rows."""
    part, mate = (one, other) if one.kind == PART else (other, one)
    row = find(find(part.parts[0]).parts[0])
    if part.size == row.size and part.start % row.size == 0:
        same_count(row, mate)
    else:
        _freeze_both(one, other, "a part of shuffled channels has to stay as wide as another")


def _bind(one: Axis, other: Axis) -> None:
    """Let the leaf ``one`` become ``other``, with all that is tied to it."""
    if any(part is one for part in leaves(other)):
        _freeze_both(one, other, "its channels are tied to a reordering of themselves")
        return
    rest = [mate for mate in one.mates if mate is not one]
    for mate in rest:
        mate.mates = rest
    one.mates = []
    one.link = other
    if one.reason:
        freeze(other, one.reason)
    if rest:
        same_count(rest[0], other)


def _join_counts(one: Axis, other: Axis) -> None:
    if one.mates is other.mates:
        return
    joined = one.mates + other.mates
    for mate in joined:
        mate.mates = joined


def _pairwise(one: Axis, other: Axis, tie: object) -> None:
    """Cut both axes at the cuts of either and tie the pieces."""
    concat, second = (one, other) if one.kind == CAT else (other, one)
    if second.kind == PROD:
        outer = find(second.parts[0])
        inner = second.size // outer.size
        if any(cut % inner for cut in _cuts(concat)):
            for a, b in zip(factor(concat, [p.size for p in second.parts]), second.parts, strict=True):
                tie(a, b)  # type: ignore[operator]
            return
    cuts = sorted({*_cuts(concat), *(_cuts(second) if second.kind == CAT else ())})
    for a, b in zip(split(concat, cuts), split(second, cuts), strict=True):
        tie(a, b)  # type: ignore[operator]


def _cuts(axis: Axis) -> list[int]:
    at, found = 0, []
    for part in axis.parts[:-1]:
        at += part.size
        found.append(at)
    return found


def _common_factors(one: Axis, other: Axis) -> list[tuple[Axis, Axis]]:
    """Pairs of equal size whose products are ``one`` and ``other``; both are frozen where there are none."""
    left = [find(p) for p in one.parts] if one.kind == PROD else [one]
    right = [find(p) for p in other.parts] if other.kind == PROD else [other]
    pairs = []
    while left and right:
        a, b = left.pop(0), right.pop(0)
        if a.size == b.size:
            pairs.append((a, b))
        elif a.size % b.size == 0:
            outer, inner = _factor_two(a, b.size, a.size // b.size)
            pairs.append((outer, b))
            left.insert(0, inner)
        elif b.size % a.size == 0:
            outer, inner = _factor_two(b, a.size, b.size // a.size)
            pairs.append((a, outer))
            right.insert(0, inner)
        else:
            _freeze_both(one, other, "two different reshapes meet")
            return []
    return pairs


def _freeze_both(one: Axis, other: Axis, reason: str) -> None:
    freeze(one, reason)
    freeze(other, reason)
