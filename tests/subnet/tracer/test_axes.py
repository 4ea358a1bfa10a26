"""The algebra of dimensions, held against index tables written out position by position."""

from __future__ import annotations

import math
import random

import pytest
import torch

from razordeploy.errors import UsageError
from razordeploy.subnet.tracer.axes import (
    cat,
    factor,
    find,
    freeze,
    interleave,
    is_frozen,
    leaf,
    leaves,
    prod,
    same_count,
    split,
    unify,
)
from razordeploy.subnet.tracer.layout import Kept, Widths, parts_of, spans
from razordeploy.subnet.tracer.rules_shape import regroup


def tied(axis):
    """For every position of ``axis``: the channels, as ``(leaf, element)``, without any one of which it goes."""
    found = [set() for _ in range(axis.size)]
    for part, span in spans(axis):
        if part.size == 1:
            continue  # what there is one of never goes
        for element in range(span.first, span.first + span.count):
            for position in span.positions(element):
                found[position].add((id(part), element))
    return found


def kept(axis, widths, *others):
    """Positions that stay when the first elements of each named leaf do."""
    chosen = Kept(widths, parts_of([axis, *others]), lambda part, width, cuts: _first(cuts))
    return chosen.index(axis).tolist()


def _first(cuts):
    pairs = zip(cuts, cuts[1:], strict=False)
    return torch.cat([torch.arange(start, start + next_new - new) for (start, new), (_, next_new) in pairs])


def test_a_split_and_its_concatenation_are_the_same_channels():
    whole = leaf(12)
    pieces = split(whole, [5, 7])
    assert [p.size for p in pieces] == [5, 2, 5]
    assert tied(find(whole)) == tied(cat(pieces))


def test_a_reshape_and_back_is_the_same_channels():
    whole, batch = leaf(24), leaf(2, "batch")
    shaped = regroup([batch, whole], [2, 2, 3, 4])
    assert [a.size for a in shaped] == [2, 2, 3, 4]
    back = regroup(shaped, [2, 24])[1]
    assert tied(back) == tied(find(whole))
    other = regroup([shaped[0], shaped[2], shaped[1], shaped[3]], [2, 24])[1]
    order = torch.arange(24).reshape(2, 3, 4).transpose(0, 1).flatten()
    assert tied(other) == [tied(back)[i] for i in order]


@pytest.mark.parametrize("seed", range(20))
def test_random_structures_place_their_elements_where_a_table_says(seed):
    """An axis tree against the same tree of index tables."""
    rng = random.Random(seed)

    def build(depth):
        kind = rng.choice(["leaf", "cat", "prod", "zip"]) if depth else "leaf"
        if kind == "leaf":
            size = rng.randint(2, 4)
            axis = leaf(size)
            return axis, [{(id(axis), e)} for e in range(size)]
        if kind == "zip":
            rows = [leaf(3) for _ in range(rng.randint(2, 3))]
            return interleave(rows), [{(id(row), i)} for i in range(3) for row in rows]
        parts = [build(depth - 1) for _ in range(rng.randint(2, 3))]
        axes, tables = zip(*parts, strict=True)
        if kind == "cat":
            return cat(axes), [position for table in tables for position in table]
        table = tables[0]
        for inner in tables[1:]:
            table = [one | two for one in table for two in inner]
        return prod(axes), table

    axis, table = build(3)
    assert axis.size == len(table)
    assert tied(axis) == table
    widths = {part: rng.randint(1, part.size) for part in {*leaves(axis)} if len(part.mates) == 1}
    dropped = {(id(part), e) for part, width in widths.items() for e in range(width, part.size)}
    assert kept(axis, widths) == [i for i, position in enumerate(table) if not position & dropped]
    assert Widths(widths).size(axis) == len(kept(axis, widths))


def test_equal_axes_share_what_is_learnt_later():
    one, two = leaf(12), leaf(12)
    unify(one, two)
    first, _ = split(one, [4])
    heads, _ = factor(first, [2, 2])
    assert heads in set(leaves(two))


def test_different_structures_are_refined_to_one():
    concat = cat([leaf(4), leaf(8)])
    product = prod([leaf(3), leaf(4)])
    unify(concat, product)
    assert tied(concat) == tied(product)
    late = cat([leaf(2), leaf(10)])
    unify(concat, late)
    assert tied(concat) == tied(product) == tied(late)


def test_equal_counts_stay_equal_when_one_is_cut():
    one, two, three = leaf(6), leaf(6), leaf(6)
    same_count(one, two)
    same_count(two, three)
    cut = split(two, [2])
    assert {id(cut[0].mates)} == {id(next(iter(leaves(axis))).mates) for axis in (one, three)}
    assert len(cut[0].mates) == len(cut[1].mates) == 3


def test_what_is_frozen_stays_frozen_in_every_form():
    one, two = leaf(8), leaf(8)
    left, right = factor(one, [2, 4])
    freeze(right, "why not")
    unify(two, prod([left, right]))
    assert [part.reason for part in leaves(two)] == [None, "why not"]
    freeze(two, "again")
    assert is_frozen(one) and right.reason == "why not"


@pytest.mark.parametrize(("first", "second"), [((2, 6), (3, 4)), ((4, 3), (3, 4))])
def test_reshapes_that_have_no_common_factors_are_frozen(first, second):
    one, two = prod([leaf(n) for n in first]), prod([leaf(n) for n in second])
    expected = math.gcd(first[0], second[0]) == 1
    unify(one, two)
    assert is_frozen(one) == is_frozen(two) == expected


def test_a_shuffled_axis_tied_to_itself_is_frozen():
    one, two = leaf(4), leaf(4)
    whole = interleave([one, two])
    unify(split(whole, [4])[0], one)
    assert is_frozen(whole)


def test_a_shuffle_keeps_its_order():
    rows = [leaf(5), leaf(5)]
    whole = interleave(rows)
    half, _ = split(whole, [5])
    widths = {rows[0]: 3, rows[1]: 3}
    index = kept(whole, widths, half)
    assert len(index) == 6 and index[:3] == kept(half, widths)
    assert all(i < 5 for i in index[:3]) and all(i >= 5 for i in index[3:])
    assert [i % 2 for i in index] == [0, 1, 0, 1, 0, 1]


def test_rows_of_a_shuffle_have_to_be_equally_wide():
    rows = [leaf(5), leaf(5)]
    whole = interleave(rows)
    split(whole, [5])
    assert rows[0].mates is rows[1].mates
    with pytest.raises((UsageError, RuntimeError)):
        kept(whole, {rows[0]: 3, rows[1]: 1})


def test_a_permutation_of_channels_is_frozen_before_it_explodes():
    pieces = split(leaf(4096), range(1, 4096))
    assert is_frozen(cat(pieces))
