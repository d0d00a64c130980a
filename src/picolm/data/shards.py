"""Rows of tokens from parquet shards, each decoded once, through Arrow buffers, into a memory-mapped file of small integers.

A row number arrives from `data/loader`; the shard and the place in it are arithmetic; tokens leave as int64. No token is ever
a Python integer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from picolm.base.errors import PicoError
from picolm.data.contract import Rows
from picolm.data.decoded import DecodedShards
from picolm.records.prepared import ShardRecord, split_fingerprint


class ShardedRows:
    """The rows of one split: `TokenRows` over a list of shards."""

    def __init__(self, shards: Sequence[ShardRecord], decoded: DecodedShards, *, name: str) -> None:
        self.name = name
        self.row_length = decoded.row_length
        self.fingerprint = split_fingerprint(decoded.row_length, list(shards))
        self._shards = list(shards)
        self._decoded = decoded
        self.ends = numpy.cumsum([shard.rows for shard in shards], dtype=numpy.int64)
        self.rows = int(self.ends[-1]) if len(shards) else 0

    def read(self, rows: Rows) -> Rows:
        """Tokens of the rows asked for, (len(rows), row_length), int64, in the order asked for."""
        self._check(rows)
        numbers = numpy.searchsorted(self.ends, rows, side="right")
        tokens = numpy.empty((len(rows), self.row_length), dtype=numpy.int64)
        in_order = bool((numpy.diff(rows) == 1).all())
        for number in numpy.unique(numbers):
            shard, begin = self._shards[number], self.ends[number] - self._shards[number].rows
            stored = self._decoded.rows_of(shard)
            if in_order:  # widened on the way from the mapped file, with no copy between
                first, last = numpy.searchsorted(numbers, [number, number + 1])
                tokens[first:last] = stored[rows[first] - begin : rows[last - 1] - begin + 1]
            else:
                mine = numbers == number
                tokens[mine] = stored[rows[mine] - begin]
        return tokens

    def will_need(self, rows: Rows) -> None:
        """Say which rows come next, so that remote shards are fetched before they are needed: theirs, and the one behind."""
        numbers = numpy.searchsorted(self.ends, rows, side="right")
        _, first = numpy.unique(numbers, return_index=True)
        in_order = [int(numbers[place]) for place in numpy.sort(first)]
        behind = [number for number in (in_order[-1] + 1,) if number < len(self._shards)] if in_order else []
        self._decoded.will_need([self._shards[number] for number in [*in_order, *behind]])

    def _check(self, rows: Rows) -> None:
        if len(rows) and (rows.min() < 0 or rows.max() >= self.rows):
            wrong = int(rows.min() if rows.min() < 0 else rows.max())
            raise PicoError(f"{self.name} has no row {wrong:,}", f"its rows are 0 to {self.rows - 1:,}")
