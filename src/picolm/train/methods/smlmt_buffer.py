"""The sequences of the last steps with an index from token to sequences: what episodes are made of.

What it holds after step `s` depends on the data order alone, not on how it was filled: a resumed run reads the same steps again,
and every process holds the same. So it is no part of the training state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy

from picolm.train.methods.smlmt_draws import Integers


class Candidates(NamedTuple):
    """Tokens that an episode may ask for, ascending, with their share of all tokens in the buffer."""

    tokens_N: Integers
    shares_N: numpy.ndarray


@dataclass(frozen=True)
class Block:
    """The sequences of one step, and their postings: (token, sequence) pairs without repetition, in this order."""

    step: int
    sequences_SL: numpy.ndarray
    unusable: int
    """Sequences left out because they hold the mask token."""
    posting_tokens_P: Integers
    posting_sequences_P: Integers
    occurrences_V: Integers

    @staticmethod
    def of(step: int, sequences_SL: Integers, vocab_size: int, mask_token: int) -> Block:
        """Index the sequences of a step."""
        clean_S = (sequences_SL != mask_token).all(axis=1)
        sequences_SL = sequences_SL[clean_S]
        count, length = sequences_SL.shape
        tokens_P = sequences_SL.ravel().astype(numpy.int64)
        pair_P = numpy.unique(tokens_P * max(count, 1) + numpy.repeat(numpy.arange(count), length))
        occurrences_V = numpy.bincount(tokens_P, minlength=vocab_size)
        unusable = len(clean_S) - count
        return Block(step, sequences_SL.astype(numpy.int32), unusable, *numpy.divmod(pair_P, max(count, 1)), occurrences_V)

    def postings(self, token: int) -> Integers:
        """Numbers, within this block, of the sequences that hold a token."""
        first, last = numpy.searchsorted(self.posting_tokens_P, [token, token + 1])
        return self.posting_sequences_P[first:last]


class RollingBuffer:
    """The sequences of the newest steps, at least `sequences` of them as soon as there are so many.

    Rows are cut into sequences of `sequence_tokens` (None: whole rows, without their last token, which no row reads). A sequence
    that already holds the mask token is left out of the index, because what is masked in it could not be told apart.
    """

    def __init__(self, *, sequences: int, sequence_tokens: int | None, vocab_size: int, mask_token: int) -> None:
        self._wanted = sequences
        self._sequence_tokens = sequence_tokens
        self.vocab_size = vocab_size
        self._mask_token = mask_token
        self._blocks: deque[Block] = deque()
        self._holding_V = numpy.zeros(vocab_size, dtype=numpy.int64)
        self._occurrences_V = numpy.zeros(vocab_size, dtype=numpy.int64)

    @property
    def steps(self) -> list[int]:
        """The steps whose rows are in it."""
        return [block.step for block in self._blocks]

    @property
    def unusable(self) -> int:
        """Sequences of these steps that are left out because they hold the mask token."""
        return sum(block.unusable for block in self._blocks)

    def advance_to(self, step: int, read: Callable[[int], Integers]) -> None:
        """Hold what belongs to `step`; `read` gives the rows (B, T + 1) of a step. Steps already held are not read again."""
        if self._blocks and self._blocks[-1].step >= step:
            self._clear()
        newest = self._blocks[-1].step if self._blocks else -1
        rows_BT = read(step)
        first = max(0, step + 1 - -(-self._wanted // self._sequences_in(rows_BT)))
        for earlier in range(max(first, newest + 1), step):
            self._add(self._index(earlier, read(earlier)))
        self._add(self._index(step, rows_BT))
        while self._blocks[0].step < first:
            self._drop()

    def candidates(self, *, minimum_sequences: int, band: tuple[float, float]) -> Candidates:
        """Tokens in at least `minimum_sequences` sequences whose share of all tokens lies in the band, both ends included."""
        shares_V = self._occurrences_V / max(1, self._occurrences_V.sum())
        low, high = band
        fits_V = (self._holding_V >= minimum_sequences) & (shares_V >= low) & (shares_V <= high)
        tokens_N = numpy.flatnonzero(fits_V)
        return Candidates(tokens_N, shares_V[tokens_N])

    def sequences_of(self, token: int) -> Integers:
        """Numbers of the sequences that hold a token, oldest first; `sequences` takes them."""
        starts = self._starts()
        found = [start + block.postings(token) for start, block in zip(starts, self._blocks, strict=False)]
        return numpy.concatenate(found) if found else numpy.zeros(0, dtype=numpy.int64)

    def sequences(self, numbers_S: Integers) -> Integers:
        """(S, L): copies of the sequences with these numbers."""
        starts = self._starts()
        place_S = numpy.searchsorted(starts, numbers_S, side="right") - 1
        picked = [
            self._blocks[place].sequences_SL[number - starts[place]] for place, number in zip(place_S, numbers_S, strict=True)
        ]
        return numpy.stack(picked).astype(numpy.int64)

    def __len__(self) -> int:
        return sum(len(block.sequences_SL) for block in self._blocks)

    def _starts(self) -> Integers:
        """Number of the first sequence of each block, and one past the last."""
        return numpy.cumsum([0, *(len(block.sequences_SL) for block in self._blocks)])

    def _length_in(self, rows_BT: Integers) -> int:
        usable = int(rows_BT.shape[1]) - 1
        return usable if self._sequence_tokens is None else min(self._sequence_tokens, usable)

    def _sequences_in(self, rows_BT: Integers) -> int:
        return len(rows_BT) * ((int(rows_BT.shape[1]) - 1) // self._length_in(rows_BT))

    def _index(self, step: int, rows_BT: Integers) -> Block:
        length, count = self._length_in(rows_BT), self._sequences_in(rows_BT)
        sequences_SL = rows_BT[:, : count // len(rows_BT) * length].reshape(count, length)
        return Block.of(step, sequences_SL, self.vocab_size, self._mask_token)

    def _add(self, block: Block) -> None:
        self._blocks.append(block)
        self._holding_V += numpy.bincount(block.posting_tokens_P, minlength=self.vocab_size)
        self._occurrences_V += block.occurrences_V

    def _drop(self) -> None:
        block = self._blocks.popleft()
        self._holding_V -= numpy.bincount(block.posting_tokens_P, minlength=self.vocab_size)
        self._occurrences_V -= block.occurrences_V

    def _clear(self) -> None:
        while self._blocks:
            self._drop()
