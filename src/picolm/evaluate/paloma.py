"""`paloma` and `paloma_original`: perplexity on a data set named as in the original's configuration.

The first is computed in Paloma's manner, by tokens; the second is the number the original reports, the mean over documents of
each document's own perplexity, which short documents dominate. The two must not be compared with each other.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import PositiveInt

from picolm.base.errors import PicoError
from picolm.evaluate.contract import EVALUATIONS, Evaluation, Given, ItemValues
from picolm.evaluate.documents import Documents, Source, open_documents
from picolm.evaluate.estimates import mean_of
from picolm.evaluate.perplexity import Perplexity, losses_of
from picolm.evaluate.scorer import Scorer
from picolm.records.evaluation import Score


@EVALUATIONS.register("paloma")
class Paloma(Evaluation):
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
        self._name = dataset_name
        self._options: dict[str, Any] = {"split": dataset_split, "domain_field": domain_field, "limit": limit}
        self._max_length = max_length
        self._perplexity = Perplexity(data=dataset_name, **self._options)

    def check(self, given: Given) -> None:
        window = self._max_length if given.max_seq_len is None else min(self._max_length, given.max_seq_len)
        self._perplexity = Perplexity(data=self._name, window=window, **self._options)
        with_switch(self._perplexity.check, given)

    def run(self, scorer: Scorer) -> list[Score]:
        return self._perplexity.run(scorer)

    def item_values(self) -> ItemValues:
        return self._perplexity.item_values()

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        return self._perplexity.settings(scorer)


@EVALUATIONS.register("paloma_original")
class PalomaOriginal(Evaluation):
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
        self._source = Source(dataset_name, dataset_split, limit=limit, prefix=False)
        self._max_length = max_length
        self._documents: Documents | None = None

    def check(self, given: Given) -> None:
        self._documents = with_switch(lambda surroundings: open_documents(self._source, surroundings), given)

    def run(self, scorer: Scorer) -> list[Score]:
        assert self._documents is not None, "check comes before run"
        length = self._length_for(scorer)
        perplexities: list[float] = []
        short = 0
        for chunk in self._documents.chunks(scorer):
            kept = [document.tokens[:length] for document in chunk if len(document.tokens) > 1]
            short += len(chunk) - len(kept)
            losses = losses_of(kept, scorer, length, length)
            perplexities += [math.exp(min(loss / (len(tokens) - 1), 700.0)) for loss, tokens in zip(losses, kept, strict=True)]
        mean = mean_of(perplexities)
        note = f"{short} documents of a single token left out" if short else ""
        return [Score("paloma_original", "mean_document_perplexity", mean.value, "all", mean.standard_error, mean.n, note=note)]

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        assert self._documents is not None, "check comes before run"
        return {
            "data": self._source.data,
            "data_hash": self._documents.data_hash,
            "split": self._source.split,
            "max_length": self._length_for(scorer),
            "prefix": False,
            "limit": self._source.limit,
        }

    def _length_for(self, scorer: Scorer) -> int:
        return min(self._max_length, scorer.max_seq_len)


def with_switch(check: Any, given: Given) -> Any:
    """What `check` gives; its errors also say which setting names the data and how to switch the evaluation off."""
    try:
        return check(given)
    except PicoError as error:
        switch = "--set evaluation.paloma.dataset_name=PATH names a local copy, =null switches it off"
        hint = f"{error.hint}; {switch}" if error.hint else switch
        raise PicoError(f"evaluation.paloma.dataset_name: {error.message}", hint) from error
