"""Small classification tasks from unlabelled text: which of N words was masked out of this sequence?

Subset-masked language-model tasks (SMLMT), Bansal et al. (2020): the classes are N words, the examples sequences that hold one
of them, with the word masked. Episodes arrive from the buffer and leave as numpy arrays for `maml`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import torch

from picolm.train.methods.smlmt_buffer import RollingBuffer
from picolm.train.methods.smlmt_draws import Integers, choice, weighted_choice

FEWEST_WAYS = 2


@dataclass(frozen=True)
class EpisodeSettings:
    """What episodes look like."""

    ways: int
    """Classes, if there are words enough."""
    support: int
    """Examples per class to adapt to."""
    query: int
    """Examples per class to be judged by."""
    mask_token: int
    frequency_band: tuple[float, float]
    """Smallest and largest share of all tokens that a word may have."""
    frequency_exponent: float
    """Words are drawn in proportion to their share to this power."""
    mask_one_occurrence: bool = False
    """Departure: other occurrences of the word stay readable."""
    sorted_labels: bool = False
    """Departure: labels follow token numbers instead of a fresh permutation."""
    shared_positions: bool = False
    """Departure: examples are the tokens at a few positions, the same in all sequences."""
    collapsed_labels: bool = False
    """Departure: sequences are drawn without regard to words, and a target that is none of the classes becomes class 0."""


@dataclass(frozen=True)
class Examples:
    """Masked sequences (S, L), the label of each, and where its word stood (the last place, if at several)."""

    tokens_SL: Integers
    labels_S: Integers
    positions_S: Integers

    def __len__(self) -> int:
        return len(self.labels_S)


@dataclass(frozen=True)
class Episode:
    """One task. `words_N[label]` is the token that was masked."""

    words_N: Integers
    support: Examples
    query: Examples

    @property
    def ways(self) -> int:
        """Number of classes."""
        return len(self.words_N)


def draw_episode(buffer: RollingBuffer, settings: EpisodeSettings, draws: torch.Generator) -> Episode | None:
    """An episode of `ways` words, of fewer if the buffer has no more that fit, or None with fewer than two.

    Each word gives `support + query` distinct sequences, in which all its occurrences are masked.
    """
    shots = settings.support + settings.query
    candidates = buffer.candidates(minimum_sequences=shots, band=settings.frequency_band)
    ways = min(settings.ways, len(candidates.tokens_N))
    if ways < FEWEST_WAYS:
        return None
    chosen_N = weighted_choice(draws, candidates.shares_N**settings.frequency_exponent, ways)
    words_N = label_order(candidates.tokens_N[chosen_N], settings, draws)
    of_word = [buffer.sequences_of(word) for word in words_N.tolist()]
    numbers_NS = numpy.stack([numbers[choice(draws, len(numbers), shots)] for numbers in of_word])
    parts = [
        examples(buffer.sequences(part_NS.ravel()), words_N, numpy.repeat(numpy.arange(ways), part_NS.shape[1]), settings)
        for part_NS in (numbers_NS[:, : settings.support], numbers_NS[:, settings.support :])
    ]
    return Episode(words_N, *parts)


def label_order(words_N: Integers, settings: EpisodeSettings, draws: torch.Generator) -> Integers:
    """The words in the order of their labels: a fresh permutation, so that no label can be learnt by heart."""
    return numpy.sort(words_N) if settings.sorted_labels else words_N[choice(draws, len(words_N), len(words_N))]


def examples(sequences_SL: Integers, words_N: Integers, labels_S: Integers, settings: EpisodeSettings) -> Examples:
    """The sequences with the word of their label masked, wherever it stands."""
    hit_SL = sequences_SL == words_N[labels_S][:, None]
    last_S = hit_SL.shape[1] - 1 - hit_SL[:, ::-1].argmax(axis=1)
    return Examples(mask(sequences_SL, last_S, settings), labels_S, last_S)


def mask(sequences_SL: Integers, positions_S: Integers, settings: EpisodeSettings) -> Integers:
    """The sequences without the word that stands at a position, there and wherever else it occurs."""
    words_S = numpy.take_along_axis(sequences_SL, positions_S[:, None], axis=1)
    if settings.mask_one_occurrence:
        hit_SL = numpy.arange(sequences_SL.shape[1]) == positions_S[:, None]
    else:
        hit_SL = sequences_SL == words_S
    return numpy.where(hit_SL, settings.mask_token, sequences_SL)
