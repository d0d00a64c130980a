"""The order of rows, for any sizes: every row once per epoch, in the declared order, wherever one begins."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picolm.base.errors import PicoError
from picolm.data.order import MIX_BLOCK_ROWS, IdentityOrder, PermutedOrder, build_order, permute, shares_per_block


@settings(deadline=None, max_examples=50)
@given(size=st.integers(1, 700), key=st.integers(0, 2**64 - 1))
def test_a_keyed_permutation_is_a_permutation(size: int, key: int):
    places = permute(numpy.arange(size), size, key)
    assert sorted(places.tolist()) == list(range(size))


@settings(deadline=None, max_examples=50)
@given(size=st.integers(1, 10**15), key=st.integers(0, 2**64 - 1), data=st.data())
def test_a_place_does_not_depend_on_what_else_is_asked(size: int, key: int, data: st.DataObject):
    asked = numpy.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)))
    together = permute(asked, size, key)
    assert ((together >= 0) & (together < size)).all()
    assert [int(permute(numpy.array([place]), size, key)[0]) for place in asked] == together.tolist()


def test_permutations_of_many_keys_send_each_position_everywhere_alike():
    for size in (5, 12, 31, 100, 300):
        keys = 100_000 // size
        positions = numpy.tile(numpy.arange(size), keys)
        counts = numpy.zeros((size, size))
        numpy.add.at(counts, (positions, permute(positions, size, numpy.repeat(numpy.arange(keys, dtype=numpy.uint64), size))), 1)
        chi_square = ((counts - keys / size) ** 2 / (keys / size)).sum()
        freedom = (size - 1) ** 2  # mean of chi-square; its standard deviation is sqrt(2 * freedom)
        assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5, size


@settings(deadline=None, max_examples=50)
@given(rows=st.integers(1, 300), seed=st.integers(0, 2**32), epoch=st.integers(0, 10**9))
def test_every_epoch_has_every_row_once(rows: int, seed: int, epoch: int):
    for order in (IdentityOrder(rows), PermutedOrder(rows, seed)):
        places = order.rows_at(numpy.arange(epoch * rows, (epoch + 1) * rows))
        assert sorted(places.tolist()) == list(range(rows))
    assert IdentityOrder(rows).rows_at(numpy.arange(rows)).tolist() == list(range(rows))


def test_epochs_and_seeds_differ():
    first, again = (PermutedOrder(500, 1).rows_at(numpy.arange(start, start + 500)) for start in (0, 500))
    other = PermutedOrder(500, 2).rows_at(numpy.arange(500))
    assert (first != again).mean() > 0.9
    assert (first != other).mean() > 0.9


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 400), min_size=2, max_size=4),
    shuffle=st.booleans(),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_a_mixture_keeps_its_shares_in_every_block_and_every_source_its_epochs(sizes, shuffle, seed, data):
    weights = tuple(data.draw(st.floats(0.05, 1.0)) for _ in sizes)
    order = build_order(tuple(sizes), weights, shuffle=shuffle, seed=seed)
    rows = order.rows_at(numpy.arange(3 * MIX_BLOCK_ROWS))
    starts = numpy.cumsum([0, *sizes])
    source = numpy.searchsorted(starts, rows, side="right") - 1
    for block in range(3):
        counts = numpy.bincount(source[block * MIX_BLOCK_ROWS : (block + 1) * MIX_BLOCK_ROWS], minlength=len(sizes))
        assert counts.tolist() == list(shares_per_block(weights))
        assert counts / MIX_BLOCK_ROWS == pytest.approx(numpy.array(weights) / sum(weights), abs=1 / MIX_BLOCK_ROWS)
    for number, size in enumerate(sizes):
        mine = rows[source == number] - starts[number]
        for epoch in range(len(mine) // size):
            assert sorted(mine[epoch * size : (epoch + 1) * size].tolist()) == list(range(size))
        if not shuffle:
            assert mine.tolist() == (numpy.arange(len(mine)) % size).tolist()
    middle = numpy.arange(MIX_BLOCK_ROWS - 7, MIX_BLOCK_ROWS + 9)
    assert order.rows_at(middle).tolist() == rows[middle].tolist()


def test_a_share_too_small_to_be_met_is_refused():
    with pytest.raises(PicoError, match="gives no rows"):
        shares_per_block((1.0, 0.0001))
