"""Which row comes when: arithmetic from a global row to a row of the data. Nothing is stored, any place is reached at once.

Global row `g` is position `g mod rows` of epoch `g div rows`. An order turns global rows into row numbers; `data/loader` asks it
for the rows of a step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy

from picolm.base.errors import PicoError
from picolm.data.contract import Rows

Words = numpy.ndarray[Any, numpy.dtype[numpy.uint64]]

SMALL_BITS = 16
ROUNDS, ROUNDS_IF_SMALL = 12, 24
"""Rounds of the Feistel network. Fewer leave a bias in small permutations; measured in tests/data/test_order.py."""
MIX_BLOCK_ROWS = 1000
"""Shares of a mixture are met exactly within every block of this many rows, so they are rounded to thousandths."""


class RowOrder(Protocol):
    """Turns global rows (0, 1, 2, ... over all epochs) into row numbers of the data."""

    def rows_at(self, global_rows: Rows) -> Rows:
        """Row number at each global row."""


def named_key(stream: str, seed: int) -> int:
    """64-bit key of a named stream of random numbers."""
    return int.from_bytes(hashlib.sha256(f"picolm.data/{stream}/{seed}".encode()).digest()[:8], "little")


def scramble(words: Words, key: int | Words) -> Words:
    """64 well-mixed bits for each word under a key: the finaliser of splitmix64 (Steele et al. 2014), applied twice."""
    return _mix(_mix(words ^ numpy.asarray(key, dtype=numpy.uint64)))


def _mix(words: Words) -> Words:
    words = words + numpy.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return words ^ (words >> numpy.uint64(31))


def permute(positions: Rows, size: int, keys: int | Words) -> Rows:
    """Where a keyed permutation of 0..size-1 sends each position; `keys` is one key, or one per position.

    A Feistel network permutes the next power of two; positions that land outside are sent on until they land inside
    (cycle walking, Black and Rogaway 2002), on average less than twice.
    """
    if size < 2:
        return positions
    bits = (size - 1).bit_length()
    if bits == 1:
        flip = scramble(numpy.zeros(positions.shape, dtype=numpy.uint64), keys) & numpy.uint64(1)
        return positions ^ flip.astype(numpy.int64)
    keys_of = numpy.broadcast_to(numpy.asarray(keys, dtype=numpy.uint64), positions.shape)
    result = _feistel(positions.astype(numpy.uint64), keys_of, bits)
    outside = numpy.flatnonzero(result >= size)
    while outside.size:
        result[outside] = _feistel(result[outside], keys_of[outside], bits)
        outside = outside[result[outside] >= size]
    return result.astype(numpy.int64)


def _feistel(words: Words, keys: Words, bits: int) -> Words:
    low_bits, high_bits = bits // 2, bits - bits // 2
    keys = scramble(keys, 0)
    for number in range(ROUNDS_IF_SMALL if bits < SMALL_BITS else ROUNDS):
        low = words & numpy.uint64((1 << low_bits) - 1)
        high = words >> numpy.uint64(low_bits)
        high = high ^ (_mix(low ^ (keys + numpy.uint64(number))) >> numpy.uint64(64 - high_bits))
        words = (low << numpy.uint64(high_bits)) | high
        low_bits, high_bits = high_bits, low_bits
    return words


@dataclass(frozen=True)
class IdentityOrder:
    """The rows as they lie, again in every epoch."""

    rows: int

    def rows_at(self, global_rows: Rows) -> Rows:
        return global_rows % self.rows


@dataclass(frozen=True)
class PermutedOrder:
    """Every epoch a fresh permutation of all rows, from the seed."""

    rows: int
    seed: int

    def rows_at(self, global_rows: Rows) -> Rows:
        epochs, positions = numpy.divmod(global_rows, self.rows)
        return permute(positions, self.rows, scramble(epochs.astype(numpy.uint64), named_key("epoch", self.seed)))


@dataclass(frozen=True)
class MixedOrder:
    """Rows of several sources in fixed shares; each source keeps its own order and its own epochs.

    Row numbers count through the sources one after the other, as `data/sources.ConcatenatedRows` does. In each block of
    `MIX_BLOCK_ROWS` global rows every source gets its share exactly, at places permuted by the seed.
    """

    counts: tuple[int, ...]
    """Rows of each source per block; they add up to `MIX_BLOCK_ROWS`."""
    starts: tuple[int, ...]
    """First row number of each source."""
    orders: tuple[IdentityOrder | PermutedOrder, ...]
    seed: int

    def rows_at(self, global_rows: Rows) -> Rows:
        blocks, places = numpy.divmod(global_rows, MIX_BLOCK_ROWS)
        result = numpy.empty_like(global_rows)
        for block in numpy.unique(blocks):
            chosen = blocks == block
            source_of_place, rank_of_place = self._block(int(block))
            sources, ranks = source_of_place[places[chosen]], rank_of_place[places[chosen]]
            result[chosen] = self._rows_of(int(block), sources, ranks)
        return result

    def _block(self, block: int) -> tuple[Rows, Rows]:
        """For each place of a block: its source, and how many earlier places of the block have the same source."""
        key = scramble(numpy.array([block], dtype=numpy.uint64), named_key("mix", self.seed))[0]
        slots = permute(numpy.arange(MIX_BLOCK_ROWS), MIX_BLOCK_ROWS, int(key))
        sources = numpy.repeat(numpy.arange(len(self.counts)), self.counts)[slots]
        ranks = numpy.empty(MIX_BLOCK_ROWS, dtype=numpy.int64)
        for number, count in enumerate(self.counts):
            ranks[sources == number] = numpy.arange(count)
        return sources, ranks

    def _rows_of(self, block: int, sources: Rows, ranks: Rows) -> Rows:
        rows = numpy.empty_like(sources)
        for number, order in enumerate(self.orders):
            mine = sources == number
            rows[mine] = self.starts[number] + order.rows_at(block * self.counts[number] + ranks[mine])
        return rows


def shares_per_block(weights: tuple[float, ...]) -> tuple[int, ...]:
    """Rows per block for each weight, by largest remainder; PicoError if a weight rounds to nothing."""
    exact = numpy.array(weights, dtype=numpy.float64) / sum(weights) * MIX_BLOCK_ROWS
    counts = numpy.floor(exact).astype(int)
    for number in numpy.argsort(-(exact - counts), kind="stable")[: MIX_BLOCK_ROWS - counts.sum()]:
        counts[number] += 1
    if not counts.all():
        raise PicoError(
            f"data.dataset.mix: a share below 1/{MIX_BLOCK_ROWS} gives no rows", "raise the weight, or leave the source out"
        )
    return tuple(int(count) for count in counts)


def build_order(sizes: tuple[int, ...], weights: tuple[float, ...], *, shuffle: bool, seed: int) -> RowOrder:
    """The order of one source of `sizes[0]` rows, or of several mixed by `weights`."""
    if not weights:
        total = sum(sizes)
        return PermutedOrder(total, seed) if shuffle else IdentityOrder(total)
    starts = tuple(int(start) for start in numpy.cumsum([0, *sizes[:-1]]))
    orders = tuple(PermutedOrder(size, seed + number) if shuffle else IdentityOrder(size) for number, size in enumerate(sizes))
    return MixedOrder(shares_per_block(weights), starts, orders, seed)
