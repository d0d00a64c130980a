"""Which positions of a batch the output head must be read at. Sequences that agree up to a position share its reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

LONGEST_SHARED = 256
"""Beyond this many tokens sequences are taken to differ: comparing them would cost more than it saves."""


class TokenSequence(NamedTuple):
    """Token ids of which those from position `start` on are scored, given all before them. `start` is at least 1."""

    tokens: NDArray[np.integer[Any]]
    start: int = 1


class Reading(NamedTuple):
    """The R positions to read, and for each of the N scored tokens which of them predicts it."""

    flat_positions: IntArray
    """(R,) positions in the flattened batch, row * width + column."""
    row_of: IntArray
    """(N,) which reading predicts the token."""
    targets: IntArray
    """(N,) the token."""
    sequence_of: IntArray
    """(N,) the sequence it belongs to."""


def positions_to_read(batch: Sequence[TokenSequence], width: int, skipped: int = 0) -> Reading:
    """The readings of sequences laid out in rows of `width` without their last token and their first `skipped` ones."""
    lengths = [len(tokens) - start for tokens, start in batch]
    columns = [np.arange(start - 1 - skipped, len(tokens) - 1 - skipped) for tokens, start in batch]
    own = np.concatenate([row * width + column for row, column in enumerate(columns)])
    targets = np.concatenate([tokens[start:] for tokens, start in batch]).astype(np.int64)
    sequence_of = np.repeat(np.arange(len(batch)), lengths)
    if width > LONGEST_SHARED:
        return Reading(own, np.arange(len(own)), targets, sequence_of)
    node_at = _prefix_nodes([tokens[skipped:-1] for tokens, _ in batch], width)
    _, first, row_of = np.unique(node_at[own], return_index=True, return_inverse=True)
    return Reading(own[first], row_of, targets, sequence_of)


def _prefix_nodes(inputs: Sequence[NDArray[np.integer[Any]]], width: int) -> IntArray:
    """(rows * width,) a number per position; equal where two sequences agree up to and including it."""
    nodes = np.full(len(inputs) * width, -1, dtype=np.int64)
    number_of: dict[tuple[int, int], int] = {}
    for row, tokens in enumerate(inputs):
        parent = -1
        for column, token in enumerate(tokens.tolist()):
            parent = number_of.setdefault((parent, token), len(number_of))
            nodes[row * width + column] = parent
    return nodes
