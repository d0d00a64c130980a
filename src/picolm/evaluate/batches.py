"""Which sequences are scored together: those of similar length, and those that begin with the same long text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from picolm.evaluate.sharing import TokenSequence

SAME_START = 32
"""Sequences that agree in this many tokens at their start may share the work on it."""

LARGE_GROUP = 16
"""Fewer sequences than this are not worth a batch of their own."""


@dataclass(frozen=True)
class BatchLimits:
    """What fits into one forward pass."""

    tokens: int
    logit_rows: int | None = None
    """Tokens that may have logits at once, where the model makes those of all; None: no limit."""


def batches_of(sequences: Sequence[TokenSequence], limits: BatchLimits) -> Iterator[list[int]]:
    """Indices of the sequences with something to score, longest first: memory runs out at once or not at all."""
    group_of = _groups(sequences)
    scored = [index for index, (tokens, start) in enumerate(sequences) if start < len(tokens)]
    order = sorted(scored, key=lambda i: (group_of[i], -len(sequences[i].tokens), sequences[i].tokens.tobytes()))
    most = limits.tokens if limits.logit_rows is None else min(limits.tokens, limits.logit_rows)
    batch: list[int] = []
    for index in order:
        longest = len(sequences[batch[0]].tokens) - 1 if batch else 0
        if batch and ((len(batch) + 1) * longest > most or group_of[index] != group_of[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _groups(sequences: Sequence[TokenSequence]) -> list[bytes]:
    """For each sequence the start it shares with many others, or nothing."""
    starts = [tokens[:SAME_START].tobytes() if start > SAME_START else b"" for tokens, start in sequences]
    size_of = Counter(starts)
    return [start if size_of[start] >= LARGE_GROUP else b"" for start in starts]


def shared_start(batch: Sequence[TokenSequence]) -> int:
    """How many tokens all sequences of a batch begin with alike, before any that is read; 0 if it is not worth sharing."""
    longest = min(start for _, start in batch) - 1
    first, last = min(batch, key=_tokens_of), max(batch, key=_tokens_of)
    same = 0
    while same < longest and first.tokens[same] == last.tokens[same]:
        same += 1
    return same if len(batch) > 1 and same >= SAME_START else 0


def _tokens_of(sequence: TokenSequence) -> list[int]:
    tokens: list[int] = sequence.tokens.tolist()
    return tokens
