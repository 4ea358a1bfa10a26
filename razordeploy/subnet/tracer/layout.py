"""From the width of each leaf to the width, the kept positions and the spans of every dimension."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch

from razordeploy.errors import UsageError
from razordeploy.subnet.tracer.axes import CAT, LEAF, PART, PROD, ZIP, Axis, find
from razordeploy.subnet.tracer.unit import Span

Cuts = list[tuple[int, int]]
"""``(position before pruning, position after)``, increasing: as many elements are kept before each cut."""


class Widths:
    """Sizes of dimensions when some leaves are narrower; leaves that are not named keep their size."""

    def __init__(self, widths: Mapping[Axis, int]) -> None:
        self._known = {id(axis): width for axis, width in widths.items()}
        self._alive = list(widths)

    def size(self, axis: Axis) -> int:
        """New size of ``axis``."""
        axis = find(axis)
        known = self._known.get(id(axis))
        if known is not None:
            return known
        if axis.kind == LEAF:
            return axis.size
        if axis.kind in {CAT, ZIP}:
            size = sum(map(self.size, axis.parts))
        elif axis.kind == PROD:
            size = math.prod(map(self.size, axis.parts))
        else:
            base = axis.parts[0]
            size = self.position(base, axis.start + axis.size) - self.position(base, axis.start)
        self._known[id(axis)] = size
        self._alive.append(axis)  # an id is only good while its object lives
        return size

    def position(self, base: Axis, cut: int) -> int:
        """Where a cut of an interleaving goes: the same share of its new size, rounded half up."""
        base = find(base)
        return (2 * cut * self.size(base) + base.size) // (2 * base.size)


def parts_of(axes: Iterable[Axis]) -> list[Axis]:
    """Every ``PART`` inside ``axes``, once."""
    seen: set[int] = set()
    found, stack = [], list(axes)
    while stack:
        axis = find(stack.pop())
        if id(axis) in seen or axis.kind == LEAF:
            continue
        seen.add(id(axis))
        stack.extend(axis.parts)
        if axis.kind == PART:
            found.append(axis)
    return found


def cuts_of_leaves(parts: Iterable[Axis], widths: Widths) -> dict[Axis, Cuts]:
    """Where the parts of interleavings cut the leaves below: how many elements to keep before each cut.

    Raises:
        UsageError: the widths leave no consistent place for a cut.
    """
    found: dict[Axis, set[tuple[int, int]]] = {}
    for part in parts:
        base = part.parts[0]
        for cut in (part.start, part.start + part.size):
            _push(base, cut, widths.position(base, cut), widths, found)
    result = {}
    for axis, pairs in found.items():
        ends = sorted({(0, 0), *pairs, (axis.size, widths.size(axis))})
        for (cut, new), (next_cut, next_new) in zip(ends, ends[1:], strict=False):
            if not 0 <= next_new - new <= next_cut - cut:
                raise UsageError(
                    f"a channel shuffle cannot be {widths.size(axis)} of {axis.size} channels wide: "
                    f"{next_new - new} of the {next_cut - cut} channels {cut} to {next_cut} would have to stay",
                    hint="choose another width",
                )
        result[axis] = ends
    return result


def _push(axis: Axis, cut: int, new: int, widths: Widths, found: dict[Axis, set[tuple[int, int]]]) -> None:
    axis = find(axis)
    if axis.kind == LEAF:
        if 0 < cut < axis.size:
            found.setdefault(axis, set()).add((cut, new))
    elif axis.kind == ZIP:
        rows = len(axis.parts)
        for j, row in enumerate(axis.parts):
            _push(row, -((j - cut) // rows), -((j - new) // rows), widths, found)
    elif axis.kind == PART:
        base = axis.parts[0]
        _push(base, axis.start + cut, widths.position(base, axis.start) + new, widths, found)
    elif axis.kind == PROD:
        inner = math.prod(find(p).size for p in axis.parts[1:])
        new_inner = math.prod(widths.size(p) for p in axis.parts[1:])
        if cut % inner or new % new_inner:
            raise UsageError("a channel shuffle cuts across a reshape at this width", hint="choose another width")
        _push(axis.parts[0], cut // inner, new // new_inner, widths, found)
    else:
        for part in map(find, axis.parts):
            size, new_size = part.size, widths.size(part)
            if cut <= size:
                _push(part, cut, new, widths, found)
                return
            cut, new = cut - size, new - new_size


class Kept(Widths):
    """Which positions of every dimension stay, and in which order.

    ``pick(leaf, width, cuts)`` returns the kept elements of one leaf, ``(width,)``; it is asked once a leaf.
    """

    def __init__(
        self,
        widths: Mapping[Axis, int],
        parts: Iterable[Axis],
        pick: Callable[[Axis, int, Cuts], torch.Tensor],
    ) -> None:
        super().__init__(widths)
        self._cuts = cuts_of_leaves(parts, self)
        self._pick = pick
        self._index: dict[int, torch.Tensor] = {}

    def index(self, axis: Axis) -> torch.Tensor:
        """Positions of ``axis`` that stay, int64 ``(new size,)``; position ``i`` of the result was ``index[i]``."""
        axis = find(axis)
        known = self._index.get(id(axis))
        if known is None:
            known = self._index[id(axis)] = self._positions(axis)
            self._alive.append(axis)
        return known

    def _positions(self, axis: Axis) -> torch.Tensor:
        if axis.kind == LEAF:
            width = self.size(axis)
            cuts = self._cuts.get(axis, [(0, 0), (axis.size, width)])
            return self._pick(axis, width, cuts) if id(axis) in self._known else torch.arange(axis.size)
        if axis.kind == CAT:
            at, pieces = 0, []
            for part in map(find, axis.parts):
                pieces.append(self.index(part) + at)
                at += part.size
            return torch.cat(pieces)
        if axis.kind == PROD:
            index = self.index(axis.parts[0])
            for part in map(find, axis.parts[1:]):
                index = (index[:, None] * part.size + self.index(part)).flatten()
            return index
        if axis.kind == ZIP:
            rows = len(axis.parts)
            return torch.stack([self.index(row) * rows + j for j, row in enumerate(axis.parts)], dim=1).flatten()
        base = axis.parts[0]
        start = self.position(base, axis.start)
        return self.index(base)[start : start + self.size(axis)] - axis.start


def spans(axis: Axis) -> Iterator[tuple[Axis, Span]]:
    """Yield every leaf in ``axis`` with where its elements lie."""
    axis = find(axis)
    if axis.kind == LEAF:
        yield axis, Span(count=axis.size)
    elif axis.kind == CAT:
        at = 0
        for part in map(find, axis.parts):
            for inside, span in spans(part):
                yield inside, _moved(span, at, 1)
            at += part.size
    elif axis.kind == PROD:
        outer, inner = 1, axis.size
        for part in map(find, axis.parts):
            inner //= part.size
            for inside, span in spans(part):
                scaled = _moved(span, 0, inner)
                loops = ((outer, part.size * inner),) if outer > 1 else ()
                yield inside, _replaced(scaled, repeats=(*loops, *scaled.repeats))
            outer *= part.size
    elif axis.kind == ZIP:
        for j, row in enumerate(axis.parts):
            for inside, span in spans(row):
                yield inside, _moved(_unblocked(span), j, len(axis.parts), block=1)
    else:
        for inside, span in spans(axis.parts[0]):
            for piece in _clipped(span, axis.start, axis.start + axis.size):
                yield inside, piece


def _replaced(span: Span, **changes: object) -> Span:
    values = {name: getattr(span, name) for name in ("first", "count", "offset", "stride", "block", "repeats")}
    return Span(**{**values, **changes})


def _moved(span: Span, offset: int, scale: int, block: int | None = None) -> Span:
    """Positions ``p`` become ``p * scale + offset``, each ``scale`` wide unless ``block`` says otherwise."""
    return _replaced(
        span,
        offset=span.offset * scale + offset,
        stride=span.stride * scale,
        block=span.block * scale if block is None else block,
        repeats=tuple((times, distance * scale) for times, distance in span.repeats),
    )


def _unblocked(span: Span) -> Span:
    if span.block == 1:
        return span
    return _replaced(span, block=1, repeats=(*span.repeats, (span.block, 1)))


def _clipped(span: Span, start: int, stop: int) -> Iterator[Span]:
    """The elements of a span that lie in ``start .. stop - 1``, which becomes ``0 .. stop - start - 1``."""
    offsets = [span.offset]
    for times, distance in _unblocked(span).repeats:
        offsets = [offset + k * distance for offset in offsets for k in range(times)]
    for offset in offsets:
        low = max(0, -((offset - start) // span.stride))
        high = min(span.count, -((offset - stop) // span.stride))
        if low < high:
            at = offset + low * span.stride - start
            yield Span(first=span.first + low, count=high - low, offset=at, stride=span.stride)
