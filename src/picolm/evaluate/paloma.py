"""`paloma`: the evaluation of the original, under its option names; perplexity by domain on a named data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from picolm.base.errors import PicoError
from picolm.evaluate.contract import EVALUATIONS, Evaluation, Given
from picolm.evaluate.perplexity import Perplexity, scores_of
from picolm.evaluate.scorer import Scorer
from picolm.records.evaluation import Score


@EVALUATIONS.register("paloma")
class Paloma(Evaluation):
    """Perplexity by domain on a data set named as in the original's configuration."""

    def __init__(
        self,
        *,
        dataset_name: str,
        dataset_split: str = "val",
        max_length: PositiveInt = 2048,
        batch_size: PositiveInt = 16,
        limit: PositiveInt | None = None,
    ) -> None:
        """`max_length`: tokens per window, the model's own limit where that is shorter. `batch_size` is accepted, without
        effect on the scores: batches are made by length. `limit`: documents per domain.
        """
        self._dataset_name = dataset_name
        self._max_length = max_length
        self._perplexity = Perplexity(data=dataset_name, split=dataset_split, limit=limit)

    def check(self, given: Given) -> None:
        if not Path(self._dataset_name).expanduser().exists():
            raise PicoError(
                f"dataset_name = {self._dataset_name}: there is no such path",
                "--set evaluation.paloma.dataset_name=PATH names a local one; =null switches the evaluation off",
            )
        self._perplexity.check(given)

    def run(self, scorer: Scorer) -> list[Score]:
        return scores_of(self._perplexity.tallies(scorer, min(self._max_length, scorer.max_seq_len)))

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        window = min(self._max_length, scorer.max_seq_len)
        return {**self._perplexity.settings(scorer), "window": window, "stride": window}
