"""What the tracer finds: prunable units, as frozen data that config templates and mutators are built from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where the elements ``first .. first + count - 1`` of a strand lie along one dimension of one tensor.

    Element ``e`` covers the positions ``offset + (e - first) * stride + i`` for ``i`` in ``0 .. block - 1``, once for
    every combination of the ``repeats``.
    """

    first: int = 0
    """First element of the strand that this span places."""
    count: int
    """Number of elements placed."""
    offset: int = 0
    """Position of the first element."""
    stride: int = 1
    """Distance of two consecutive elements, in positions."""
    block: int = 1
    """Consecutive positions of one element: head_dim for a head, H * W for a flattened channel."""
    repeats: tuple[tuple[int, int], ...] = ()
    """``(times, distance)`` of each loop around the elements: a head dimension repeats once a head."""

    @property
    def positions_per_element(self) -> int:
        """How many positions go when one element goes."""
        return self.block * math.prod(times for times, _ in self.repeats)

    @property
    def end(self) -> int:
        """One past the last position."""
        loops = sum((times - 1) * distance for times, distance in self.repeats)
        return self.offset + (self.count - 1) * self.stride + loops + self.block

    def positions(self, element: int) -> Iterator[int]:
        """Every position of one element, in increasing order of the loops."""
        base = self.offset + (element - self.first) * self.stride
        starts = [base]
        for times, distance in self.repeats:
            starts = [start + k * distance for start in starts for k in range(times)]
        for start in starts:
            yield from range(start, start + self.block)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """``(start, end)`` of every contiguous run that holds all elements of the span once, ``block`` each.

        A span whose elements are interleaved with others (``stride != block``) yields one range an element.
        """
        starts = [self.offset]
        for times, distance in self.repeats:
            starts = [start + k * distance for start in starts for k in range(times)]
        for start in starts:
            if self.stride == self.block:
                yield start, start + self.count * self.block
            else:
                for k in range(self.count):
                    yield start + k * self.stride, start + k * self.stride + self.block


@dataclass(frozen=True, kw_only=True)
class Member:
    """One dimension of one parameter or buffer that shrinks with a unit."""

    tensor: str
    """Qualified name in the model's state, ``backbone.conv1.weight``."""
    dim: int
    """Dimension of the tensor."""
    size: int
    """Size of that dimension before pruning; other units may own the positions that this one does not."""
    is_output: bool
    """True: the tensor produces these channels (rows, bias, norm); False: it consumes them (columns)."""
    is_weight: bool = False
    """True for the weight of a convolution or linear layer; False for biases, norms, embeddings and scales."""
    strand: int = 0
    """Which strand of the unit; strands keep equally many elements but each its own."""
    group: int | None = None
    """Grouped convolution whose groups keep different channels: the group whose rows this entry is about."""
    groups: int = 1
    """Number of groups of that convolution."""
    spans: tuple[Span, ...]
    """Where the strand's elements are; together they cover each element of the strand the same number of times."""

    @property
    def module(self) -> str:
        """Dotted path of the module that owns the tensor; empty at the root."""
        return self.tensor.rpartition(".")[0]

    def mask(self, kept: torch.Tensor) -> torch.Tensor:
        """Positions that stay, bool ``(size,)``, for ``kept``, bool ``(channels,)``, of this member's strand.

        Positions of other units count as kept: the mask of a dimension is the conjunction over its members.
        """
        mask = torch.ones(self.size, dtype=torch.bool)
        for span in self.spans:
            for element in range(span.first, span.first + span.count):
                if not kept[element]:
                    mask[list(span.positions(element))] = False
        return mask


@dataclass(frozen=True, kw_only=True)
class PrunableUnit:
    """Channels that can only be removed together.

    A unit has one or more strands of ``channels`` elements. The elements of one strand are tied by index: element 3
    goes from every member at once. Two strands are tied by count alone: both keep equally many elements, each its own
    (the groups of a grouped convolution, the branches of a channel shuffle).
    """

    name: str
    """``module.path_(start, end)_channels`` of the first tensor that produces these channels."""
    channels: int
    """Elements of each strand: channels, attention heads or groups."""
    members: tuple[Member, ...]
    """Every dimension to slice, in the order of execution."""
    strands: int = 1
    """Number of strands."""
    kind: str = "channels"
    """``channels``; ``heads``: each element is one attention head; ``groups``: each is a block of a product."""
    primary: bool = True
    """False: a factor of channels whose other factor is the usual one to prune (the width of a head beside the number
    of heads). One share for all units goes to the primary ones."""
    cofactors: tuple[str, ...] = ()
    """Units whose elements multiply with these: the width of a head beside the number of heads."""
    reason: str | None = None
    """Why the unit cannot be pruned; None when it can."""
    statistical: bool = False
    """True: a norm, softmax, mean or sum runs over these channels, so removing one changes the others, even one whose
    members are all zero. False: removing a channel whose members are all zero changes nothing."""
    choices: tuple[int, ...] = field(default=(), repr=False, compare=False)
    """Numbers of ``channels`` that may stay, increasing; filled in by ``rd.channel_units``."""

    @property
    def prunable(self) -> bool:
        """Tell whether the unit may be given a choice."""
        return self.reason is None

    def step(self, round_to: int) -> int:
        """Fewest elements whose removal keeps every producing dimension a multiple of ``round_to`` channels."""
        channels: dict[tuple[str, int], int] = {}
        for member in self.outputs():
            each = sum(span.positions_per_element * span.count for span in member.spans) // self.channels
            key = (member.tensor, member.dim)
            channels[key] = channels.get(key, 0) + each
        return math.lcm(*(round_to // math.gcd(round_to, each) for each in channels.values())) if channels else 1

    def outputs(self) -> tuple[Member, ...]:
        """Members that produce the channels."""
        return tuple(m for m in self.members if m.is_output)

    def inputs(self) -> tuple[Member, ...]:
        """Members that consume the channels."""
        return tuple(m for m in self.members if not m.is_output)
