"""`paloma` and `paloma_original`: perplexity on a data set named as in the original's configuration.

The first is computed in Paloma's manner, by tokens; the second is the number the original reports, the mean over documents of
each document's own perplexity, which short documents dominate. The two must not be compared with each other.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from pydantic import PositiveInt

from picolm.base.errors import PicoError
from picolm.evaluate.contract import EVALUATIONS, Evaluation, Given
from picolm.evaluate.perplexity import DocumentPerplexity, Perplexity
from picolm.evaluate.scorer import Scorer
from picolm.records.evaluation import Score
from picolm.records.items import ItemValues


class Section(Evaluation):
    """A perplexity that is set in `evaluation.paloma`: built once the model's own limit is known, then asked."""

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length
        self._built: Evaluation | None = None

    @abstractmethod
    def build(self, length: int) -> Evaluation:
        """The evaluation with at most so many tokens at once."""

    def check(self, given: Given) -> None:
        """Its errors also say which setting names the data and how to switch the evaluation off."""
        self._built = self.build(self._max_length if given.max_seq_len is None else min(self._max_length, given.max_seq_len))
        try:
            self._built.check(given)
        except PicoError as error:
            switch = "--set evaluation.paloma.dataset_name=PATH names a local copy, =null switches it off"
            hint = f"{error.hint}; {switch}" if error.hint else switch
            raise PicoError(f"evaluation.paloma.dataset_name: {error.message}", hint) from error

    @property
    def built(self) -> Evaluation:
        """The evaluation that does the work."""
        assert self._built is not None, "check comes before run"
        return self._built

    def run(self, scorer: Scorer) -> list[Score]:
        return self.built.run(scorer)

    def item_values(self) -> ItemValues | None:
        return self.built.item_values()

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        return self.built.settings(scorer)


@EVALUATIONS.register("paloma")
class Paloma(Section):
    """Perplexity in Paloma's manner, token-weighted, by domain, under the option names of the original."""

    headline = "perplexity"

    def __init__(
        self,
        *,
        dataset_name: str,
        dataset_split: str = "val",
        max_length: PositiveInt = 2048,
        batch_size: PositiveInt = 16,
        domain_field: str | None = None,
        limit: PositiveInt | None = None,
    ) -> None:
        """`dataset_name`: a path, else a Hub name. `max_length`: tokens per window, the model's own limit where that is
        shorter. `batch_size` is accepted, without effect: batches are made by length. `domain_field`: column that says a
        document's domain. `limit`: documents per file.
        """
        super().__init__(max_length)
        self._options: dict[str, Any] = {
            "data": dataset_name,
            "split": dataset_split,
            "domain_field": domain_field,
            "limit": limit,
        }

    def build(self, length: int) -> Evaluation:
        return Perplexity(window=length, **self._options)


@EVALUATIONS.register("paloma_original")
class PalomaOriginal(Section):
    """The original's score: mean over documents of exp(loss per token), each document cut at `max_length` tokens."""

    headline = "mean_document_perplexity"

    def __init__(
        self,
        *,
        dataset_name: str,
        dataset_split: str = "val",
        max_length: PositiveInt = 2048,
        batch_size: PositiveInt = 16,
        limit: PositiveInt | None = None,
    ) -> None:
        """`dataset_name`: a path, else a Hub name. `max_length`: tokens kept of a document, the model's own limit where that is
        shorter. `batch_size` is accepted, without effect. `limit`: documents per file.
        """
        super().__init__(max_length)
        self._options: dict[str, Any] = {"data": dataset_name, "split": dataset_split, "limit": limit}

    def build(self, length: int) -> Evaluation:
        return DocumentPerplexity(max_tokens=length, **self._options)
