"""Minimal pairs: does the model find the good sentence more probable than the bad one? The layout is BLiMP's.

Source: Warstadt et al. (2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from picolm.base.errors import PicoError
from picolm.evaluate.contract import EVALUATIONS, Evaluation, Given
from picolm.evaluate.estimates import Estimate, mean_of
from picolm.evaluate.files import data_files, hash_of_files, read_records, text_of
from picolm.evaluate.scorer import Scorer
from picolm.records.evaluation import Score
from picolm.records.items import ItemValues


class Pair(NamedTuple):
    """Two sentences that differ in one point of grammar."""

    good: str
    bad: str
    paradigm: str
    field: str
    term: str


@EVALUATIONS.register("minimal_pairs")
class MinimalPairs(Evaluation):
    """Share of minimal pairs whose good sentence is the more probable one, and by how much, by paradigm and field."""

    headline = "accuracy"

    def __init__(
        self,
        *,
        data: str,
        delimiter: str = "",
        limit: PositiveInt | None = None,
        split: str = "",
        hub_config: str = "default",
    ) -> None:
        """`data`: records in BLiMP's layout: a file, a folder of them, or a Hub name, of which `split` and `hub_config` are used.

        `delimiter`: text between the prefix token and a sentence; the scores depend on it (lm-eval uses one space).
        `limit`: pairs per paradigm, from the start.
        """
        self._data = data
        self._delimiter = delimiter
        self._limit = limit
        self._split = split
        self._hub_config = hub_config
        self._pairs: list[Pair] = []
        self._data_hash = ""
        self._margin_P = np.zeros(0)

    def check(self, given: Given) -> None:
        files = data_files(self._data, split=self._split, hub_config=self._hub_config)
        self._pairs = limited([pair for file in files for pair in read_pairs(file)], self._limit)
        self._data_hash = hash_of_files(files)
        if given.tokenizer is not None and given.max_seq_len is not None:
            self._check_lengths(given.tokenizer.encode_batch(self._sentences), given.max_seq_len)

    def run(self, scorer: Scorer) -> list[Score]:
        log_probs_PS = self.log_probs(scorer)
        self._margin_P = log_probs_PS[:, 0] - log_probs_PS[:, 1]
        return scores_of_pairs(self._pairs, self._margin_P)

    def item_values(self) -> ItemValues:
        return ItemValues("accuracy", (self._margin_P > 0).astype(float).tolist(), [pair.paradigm for pair in self._pairs])

    def log_probs(self, scorer: Scorer) -> NDArray[np.float64]:
        """(pairs, 2): log p(good) and log p(bad) of each pair, in the order of the data."""
        return scorer.text_log_probs(self._sentences).reshape(-1, 2)

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        return {
            "data": self._data,
            "data_hash": self._data_hash,
            "delimiter": self._delimiter,
            "limit": self._limit,
            "ties": "count as wrong",
            "standard_error": "over pairs within a paradigm, clustered by paradigm elsewhere",
        }

    @property
    def _sentences(self) -> list[str]:
        return [self._delimiter + sentence for pair in self._pairs for sentence in (pair.good, pair.bad)]

    def _check_lengths(self, encoded: Sequence[Any], longest: int) -> None:
        for sentence, tokens in zip(self._sentences, encoded, strict=True):
            if len(tokens) > longest:
                raise PicoError(f"{sentence!r} has {len(tokens)} tokens; the model accepts {longest}", "use a longer context")


@EVALUATIONS.register("blimp")
class Blimp(Evaluation):
    """BLiMP, 67 paradigms of English grammar with 1,000 minimal pairs each, in the format of lm-eval."""

    headline = "accuracy"

    def __init__(self, *, data: str = "nyu-mll/blimp", delimiter: str = " ", limit: PositiveInt | None = None) -> None:
        """`data`: a folder of BLiMP's files, or its Hub name. `limit`: pairs per paradigm, from the start.

        `delimiter`: text between the prefix token and a sentence; one space, as in lm-eval, unless changed.
        """
        self.pairs = MinimalPairs(data=data, delimiter=delimiter, limit=limit, split="train", hub_config="*")

    def check(self, given: Given) -> None:
        self.pairs.check(given)

    def run(self, scorer: Scorer) -> list[Score]:
        return self.pairs.run(scorer)

    def item_values(self) -> ItemValues:
        return self.pairs.item_values()

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        return self.pairs.settings(scorer)


def read_pairs(path: Path) -> Iterator[Pair]:
    """The pairs of a JSONL file; without `UID` the file's name is the paradigm."""
    for record in read_records(path):
        values = record.values
        yield Pair(
            good=text_of(record, "sentence_good"),
            bad=text_of(record, "sentence_bad"),
            paradigm=str(values.get("UID", path.stem)),
            field=str(values.get("field", "")).replace("/", "_"),  # BLiMP spells one of its fields in two ways
            term=str(values.get("linguistics_term", "")),
        )


def limited(pairs: Sequence[Pair], limit: int | None) -> list[Pair]:
    """At most `limit` pairs of each paradigm, in order."""
    seen: dict[str, int] = {}
    kept = []
    for pair in pairs:
        seen[pair.paradigm] = seen.get(pair.paradigm, 0) + 1
        if limit is None or seen[pair.paradigm] <= limit:
            kept.append(pair)
    return kept


def scores_of_pairs(pairs: Sequence[Pair], margin_P: NDArray[np.float64]) -> list[Score]:
    """Accuracy and mean margin, log p(good) - log p(bad), of all pairs and of each field, term and paradigm."""
    paradigms = [pair.paradigm for pair in pairs]
    scores = _scores_of_group("all", margin_P, paradigms)
    for kind, names in (("field", [pair.field for pair in pairs]), ("term", [pair.term for pair in pairs])):
        for name in sorted(set(names) - {""}):
            chosen = np.flatnonzero(np.asarray(names) == name)
            scores += _scores_of_group(f"{kind}/{name}", margin_P[chosen], [paradigms[index] for index in chosen])
    for name in dict.fromkeys(paradigms):
        chosen = np.flatnonzero(np.asarray(paradigms) == name)
        scores += _scores_of_group(f"paradigm/{name}", margin_P[chosen], [name] * len(chosen))
    return scores


def _scores_of_group(group: str, margin_P: NDArray[np.float64], paradigms: Sequence[str]) -> list[Score]:
    clusters = paradigms if len(set(paradigms)) > 1 else None
    accuracy, margin = mean_of(margin_P > 0, clusters), mean_of(margin_P, clusters)
    ties = int((margin_P == 0).sum())
    note = f"{ties} tied pair{'s' if ties > 1 else ''}, counted as wrong" if ties else ""
    return [_score("accuracy", accuracy, group, 0.5, note), _score("mean_margin", margin, group, 0.0, "")]


def _score(measure: str, estimate: Estimate, group: str, baseline: float, note: str) -> Score:
    return Score("minimal_pairs", measure, estimate.value, group, estimate.standard_error, estimate.n, baseline, note)
