"""Batches of steps: every row once per epoch for any sizes, batches, devices, micro-batches and restarts."""

from __future__ import annotations

import itertools
import threading
import time

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picolm.base.errors import PicoError
from picolm.data.loader import BatchLoader
from picolm.data.order import PermutedOrder


class CountedRows:
    """Row `n` holds n, n, n, ..."""

    def __init__(self, rows: int, row_length: int = 3) -> None:
        self.rows = rows
        self.row_length = row_length
        self.fingerprint = "counted"

    def read(self, rows: numpy.ndarray) -> numpy.ndarray:
        return numpy.repeat(rows[:, None], self.row_length, axis=1)


@settings(deadline=None, max_examples=50)
@given(
    rows=st.integers(1, 60),
    micro_rows=st.integers(1, 4),
    micro_batches=st.integers(1, 4),
    world=st.integers(1, 4),
    shuffle=st.booleans(),
    seed=st.integers(0, 99),
    restarts=st.lists(st.integers(0, 40), max_size=4),
)
def test_every_row_comes_once_per_epoch_in_the_declared_order(rows, micro_rows, micro_batches, world, shuffle, seed, restarts):
    batch = micro_rows * micro_batches * world
    loaders = [
        BatchLoader(CountedRows(rows), batch_sequences=batch, seed=seed, shuffle=shuffle, rank=rank, world=world)
        for rank in range(world)
    ]
    steps = -(-2 * rows // batch) + 1
    borders = sorted({0, steps, *(restart % steps for restart in restarts)})
    seen: list[int] = []
    for start, stop in itertools.pairwise(borders):
        for step in range(start, stop):  # each stretch is a fresh process in real life; nothing is carried over
            for loader in loaders:
                for number in range(micro_batches):
                    seen += loader.rows_of_micro_batch(step, number, micro_batches).tolist()
    assert len(seen) == steps * batch
    for epoch in range(2):
        assert sorted(seen[epoch * rows : (epoch + 1) * rows]) == list(range(rows))
    declared = PermutedOrder(rows, seed).rows_at(numpy.arange(len(seen))) if shuffle else numpy.arange(len(seen)) % rows
    assert seen == declared.tolist()


def test_prefetched_batches_are_those_of_their_steps_and_the_thread_ends():
    loader = BatchLoader(CountedRows(10), batch_sequences=4, seed=0)
    before = threading.active_count()
    batches = list(loader.prefetched(3, 8))
    assert [batch.step for batch in batches] == [3, 4, 5, 6, 7]
    for batch in batches:
        assert batch.tokens_BT.tolist() == loader.batch_of_step(batch.step).tolist()
    iterator = loader.prefetched(0, 1000)
    next(iterator)
    iterator.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_an_error_of_the_reading_thread_reaches_the_loop():
    class Broken(CountedRows):
        def read(self, rows: numpy.ndarray) -> numpy.ndarray:
            if rows[0] >= 8:
                raise PicoError("the shard is gone")
            return super().read(rows)

    loader = BatchLoader(Broken(100), batch_sequences=4, seed=0)
    seen = []
    with pytest.raises(PicoError, match="the shard is gone"):
        for batch in loader.prefetched(0, 10):
            seen.append(batch.step)
    assert seen == [0, 1]


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(PicoError, match="batch_size = 10 does not divide over 4"):
        BatchLoader(CountedRows(10), batch_sequences=10, seed=0, world=4)
    with pytest.raises(PicoError, match="no rows"):
        BatchLoader(CountedRows(0), batch_sequences=1, seed=0)
    with pytest.raises(PicoError, match="do not divide into 3"):
        BatchLoader(CountedRows(10), batch_sequences=4, seed=0).rows_of_micro_batch(0, 0, 3)
