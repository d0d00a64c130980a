"""Episodes as the published code of Pico's first case study built them, for comparison: they are not SMLMT.

There, examples are whatever token stands at a position. Two departures come apart: whether all sequences share their positions,
and whether a target that is none of the classes is taken for class 0 or left out.
"""

from __future__ import annotations

import numpy
import torch

from picolm.train.methods.smlmt_buffer import RollingBuffer
from picolm.train.methods.smlmt_draws import Integers, choice
from picolm.train.methods.smlmt_episodes import FEWEST_WAYS, Episode, EpisodeSettings, Examples, label_order, mask


def draw_position_episode(
    buffer: RollingBuffer, settings: EpisodeSettings, draws: torch.Generator, vocab_size: int
) -> Episode | None:
    """An episode of `ways` random sequences, each with `support` and `query` positions; None if the buffer is too small.

    The classes are the distinct tokens at the support positions. With collapsed labels they are cut to `ways`, or filled up with
    random tokens, and every other target becomes class 0; otherwise examples of other tokens are left out.
    """
    if len(buffer) < settings.ways:
        return None
    sequences_BL = buffer.sequences(choice(draws, len(buffer), settings.ways))
    positions_BP = draw_positions(draws, sequences_BL, settings.support + settings.query, shared=settings.shared_positions)
    targets_BP = numpy.take_along_axis(sequences_BL, positions_BP, axis=1)
    words_N = numpy.unique(targets_BP[:, : settings.support])
    if settings.collapsed_labels and len(words_N) < settings.ways:
        others_V = numpy.setdiff1d(numpy.arange(vocab_size), words_N)
        filling = others_V[choice(draws, len(others_V), settings.ways - len(words_N))]
        words_N = numpy.concatenate([words_N, filling])
    words_N = label_order(words_N[: settings.ways], settings, draws)
    label_of_V = numpy.full(vocab_size, 0 if settings.collapsed_labels else -1)
    label_of_V[words_N] = numpy.arange(len(words_N))
    split = [slice(settings.support), slice(settings.support, None)]
    parts = [_examples(sequences_BL, positions_BP[:, part], label_of_V[targets_BP[:, part]], settings) for part in split]
    usable = len(words_N) >= FEWEST_WAYS and all(len(part) for part in parts)
    return Episode(words_N, *parts) if usable else None


def draw_positions(draws: torch.Generator, sequences_BL: Integers, count: int, *, shared: bool) -> Integers:
    """(B, P): distinct positions of every sequence, or one draw for all of them."""
    count_B, length = sequences_BL.shape
    if shared:
        return numpy.tile(choice(draws, length, count), (count_B, 1))
    return numpy.stack([choice(draws, length, count) for _ in range(count_B)])


def _examples(sequences_BL: Integers, positions_BP: Integers, labels_BP: Integers, settings: EpisodeSettings) -> Examples:
    repeated_SL = numpy.repeat(sequences_BL, positions_BP.shape[1], axis=0)
    positions_S, labels_S = positions_BP.ravel(), labels_BP.ravel()
    kept_S = labels_S >= 0
    tokens_SL = mask(repeated_SL[kept_S], positions_S[kept_S], settings)
    return Examples(tokens_SL, labels_S[kept_S], positions_S[kept_S])
