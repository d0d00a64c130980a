"""The episodes of any step: a pure function of seed, step and number, whatever ran before and in however many processes."""

from __future__ import annotations

import torch

from picolm.base.errors import PicoError
from picolm.train.methods.contract import RunFacts, draws_for
from picolm.train.methods.smlmt_buffer import RollingBuffer
from picolm.train.methods.smlmt_draws import Integers
from picolm.train.methods.smlmt_episodes import Episode, EpisodeSettings, draw_episode
from picolm.train.methods.smlmt_published import draw_position_episode

MOST_UNUSABLE_SHARE = 0.5
MASK_TOKEN_HINT = "name a token that the data do not use, such as -1 with a model.vocab_size above the tokenizer's"


class EpisodeStream:
    """Draws the episodes of a step from the rows of the run up to that step."""

    def __init__(self, settings: EpisodeSettings, buffer: RollingBuffer, facts: RunFacts) -> None:
        self._settings = settings
        self._buffer = buffer
        self._facts = facts

    @property
    def unusable(self) -> int:
        """Sequences in the buffer's steps that cannot be used because the mask token is in them."""
        return self._buffer.unusable

    def episodes(self, step: int, count: int) -> list[Episode]:
        """Up to `count` episodes; those for which the buffer has too few words are left out."""
        if not count:
            return []
        self._buffer.advance_to(step, self._rows_of_step)
        self._check_mask_token()
        drawn = (self._draw(draws_for(self._facts.seed, "maml.episode", step, number)) for number in range(count))
        return [episode for episode in drawn if episode is not None]

    def _draw(self, draws: torch.Generator) -> Episode | None:
        if self._settings.shared_positions or self._settings.collapsed_labels:
            return draw_position_episode(self._buffer, self._settings, draws, self._buffer.vocab_size)
        return draw_episode(self._buffer, self._settings, draws)

    def _rows_of_step(self, step: int) -> Integers:
        rows_BT: Integers = self._facts.rows_of_step(step).numpy()
        return rows_BT

    def _check_mask_token(self) -> None:
        unusable, everything = self._buffer.unusable, len(self._buffer) + self._buffer.unusable
        if unusable > MOST_UNUSABLE_SHARE * everything:
            raise PicoError(
                f"training.method.mask_token = {self._settings.mask_token} occurs in {unusable} of {everything} sequences, so it "
                "cannot stand for a hidden word",
                MASK_TOKEN_HINT,
            )
