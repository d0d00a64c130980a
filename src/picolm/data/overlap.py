"""How much of the held-out text also stands in the training text: n-grams of tokens that both have.

Only the held-out side is kept in memory, as sorted 64-bit hashes; the training rows stream past. N-grams that reach over the end
of a document or of a row are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy

from picolm.base.errors import PicoError
from picolm.data.contract import Rows, TokenRows
from picolm.data.order import Words, named_key, scramble

BLOCK_ROWS = 2048
NGRAM_TOKENS = 13
EXAMPLES = 5


@dataclass(frozen=True)
class Overlap:
    """What was found."""

    ngram_tokens: int
    val_ngrams: int
    """Places in the held-out rows where an n-gram begins."""
    val_ngrams_in_train: int
    val_rows: int
    val_rows_touched: int
    """Rows with at least one n-gram that the training rows have too."""
    examples: list[tuple[int, int]]
    """(row, place) of the first n-grams found, at most one per row."""

    @property
    def share(self) -> float:
        """Share of the held-out n-grams that the training rows have too."""
        return self.val_ngrams_in_train / self.val_ngrams if self.val_ngrams else 0.0


def measure_overlap(
    train: TokenRows,
    val: TokenRows,
    *,
    end_of_text_id: int | None,
    vocab_size: int,
    ngram_tokens: int = NGRAM_TOKENS,
    progress: Callable[[float], None] = lambda _: None,
) -> Overlap:
    """The n-grams of `val` that `train` has too. A chance collision of hashes is one in 10^19 per pair of n-grams."""
    if ngram_tokens > val.row_length:
        raise PicoError(f"--ngram {ngram_tokens} is longer than a row of {val.row_length} tokens", f"at most {val.row_length}")
    table = _hash_table(vocab_size, ngram_tokens)
    held = numpy.unique(numpy.concatenate([hashes[keep] for hashes, keep in _hashes(val, table, end_of_text_id)]))
    seen = numpy.zeros(len(held), dtype=bool)
    done = 0
    for hashes, keep in _hashes(train, table, end_of_text_id):
        seen[_places(held, hashes[keep])] = True
        done += len(hashes)
        progress(done / train.rows)
    common = held[seen]
    total, found, touched, first_row = 0, 0, 0, 0
    examples: list[tuple[int, int]] = []
    for hashes, keep in _hashes(val, table, end_of_text_id):
        hits = numpy.zeros(hashes.shape, dtype=bool)
        if len(common):
            hits = keep & (common[numpy.searchsorted(common, hashes).clip(max=len(common) - 1)] == hashes)
        total, found = total + int(keep.sum()), found + int(hits.sum())
        rows = numpy.flatnonzero(hits.any(axis=1))
        touched += len(rows)
        examples += [(first_row + int(row), int(hits[row].argmax())) for row in rows[: EXAMPLES - len(examples)]]
        first_row += len(hashes)
    return Overlap(ngram_tokens, total, found, val.rows, touched, examples)


def _hash_table(vocab_size: int, ngram_tokens: int) -> Words:
    """A random 64-bit word for each token at each place; the hash of an n-gram is their sum modulo 2^64."""
    numbers = numpy.arange(ngram_tokens * vocab_size, dtype=numpy.uint64)
    return scramble(numbers, named_key("overlap", 0)).reshape(ngram_tokens, vocab_size)


def _hashes(rows: TokenRows, table: Words, end_of_text_id: int | None) -> Iterator[tuple[Words, numpy.ndarray[Any, Any]]]:
    """Blocks of rows: the hash of the n-gram at each place, and whether it lies within one document."""
    ngram_tokens = len(table)
    places = rows.row_length - ngram_tokens + 1
    for start in range(0, rows.rows, BLOCK_ROWS):
        tokens_BT: Rows = rows.read(numpy.arange(start, min(start + BLOCK_ROWS, rows.rows)))
        hashes = numpy.zeros((len(tokens_BT), places), dtype=numpy.uint64)
        ends = numpy.zeros((len(tokens_BT), places), dtype=bool)
        for offset in range(ngram_tokens):
            window = tokens_BT[:, offset : offset + places]
            hashes += table[offset][window]
            if end_of_text_id is not None:
                ends |= window == end_of_text_id
        yield hashes, ~ends


def _places(held: Words, hashes: Words) -> Rows:
    """Where in `held` the hashes are that it has."""
    if not len(held):
        return numpy.empty(0, dtype=numpy.int64)
    places = numpy.searchsorted(held, hashes).clip(max=len(held) - 1)
    found: Rows = places[held[places] == hashes]
    return found
