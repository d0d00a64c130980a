"""Overlap between splits against sets of tuples."""

from __future__ import annotations

import numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from picolm.data.overlap import measure_overlap


class GivenRows:
    """Rows of a matrix."""

    fingerprint = "given"

    def __init__(self, tokens: numpy.ndarray) -> None:
        self.tokens = tokens
        self.rows, self.row_length = tokens.shape

    def read(self, rows: numpy.ndarray) -> numpy.ndarray:
        return self.tokens[rows]


def ngrams(tokens: numpy.ndarray, size: int, end: int) -> list[list[tuple[int, ...]]]:
    """The n-grams of each row that hold no end-of-text, by plain slicing."""
    return [
        [tuple(row[i : i + size]) for i in range(len(row) - size + 1) if end not in row[i : i + size]] for row in tokens.tolist()
    ]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), vocabulary=st.integers(2, 6), size=st.integers(1, 5))
def test_overlap_equals_that_of_sets(seed: int, vocabulary: int, size: int):
    chosen = numpy.random.default_rng(seed)
    train, val = (chosen.integers(0, vocabulary, (rows, 9)) for rows in (6, 4))
    known = {ngram for row in ngrams(train, size, 0) for ngram in row}
    rows = ngrams(val, size, 0)
    found = measure_overlap(GivenRows(train), GivenRows(val), end_of_text_id=0, vocab_size=vocabulary, ngram_tokens=size)
    assert found.val_ngrams == sum(map(len, rows))
    assert found.val_ngrams_in_train == sum(ngram in known for row in rows for ngram in row)
    assert found.val_rows_touched == sum(any(ngram in known for ngram in row) for row in rows)
    for row, place in found.examples:
        assert tuple(val[row, place : place + size].tolist()) in known


def test_a_copied_row_is_found_among_many():
    chosen = numpy.random.default_rng(0)
    train, val = chosen.integers(1, 50_000, (5_000, 65)), chosen.integers(1, 50_000, (100, 65))
    val[17] = train[4_321]
    found = measure_overlap(GivenRows(train), GivenRows(val), end_of_text_id=0, vocab_size=50_000)
    assert (found.val_ngrams_in_train, found.val_rows_touched, found.examples) == (65 - 12, 1, [(17, 0)])
