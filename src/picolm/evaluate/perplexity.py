"""How well a model predicts text: loss per token, perplexity and bits per byte, by domain and over all.

Source of the manner: Paloma (Magnusson et al., 2024): token-weighted within a domain, domains averaged without weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from picolm.base.errors import PicoError
from picolm.evaluate.contract import EVALUATIONS, Evaluation, Given
from picolm.evaluate.documents import Documents, open_documents
from picolm.evaluate.estimates import Estimate, exponential_of, mean_of_estimates, ratio_of
from picolm.evaluate.scorer import Scorer, TokenSequence
from picolm.records.evaluation import Score

NATS_PER_BIT = float(np.log(2.0))


@EVALUATIONS.register("perplexity")
class Perplexity(Evaluation):
    """Loss per token (nats), perplexity and bits per byte of texts or token rows, by domain."""

    def __init__(
        self,
        *,
        data: str | None = None,
        split: str = "val",
        window: PositiveInt | None = None,
        stride: PositiveInt | None = None,
        text_field: str = "text",
        limit: PositiveInt | None = None,
    ) -> None:
        """`data`: a JSONL file, a folder of them (each file is a domain), prepared data; null: the run's prepared data.

        `window`: tokens predicted at once; null: as many as the model accepts. `stride`: tokens between windows; null: the
        window, so that they are disjoint (only the last of a document reaches back to be full). A smaller stride gives every
        token at least window - stride tokens of context. `limit`: documents (or rows) per file.
        """
        self._data = data
        self._split = split
        self._window = window
        self._stride = stride
        self._text_field = text_field
        self._limit = limit
        self._documents: Documents | None = None

    def check(self, given: Given) -> None:
        window = self._window
        if window is not None and given.max_seq_len is not None and window > given.max_seq_len:
            raise PicoError(f"window = {window} is more than the {given.max_seq_len} tokens the model accepts", "leave it out")
        if window is not None and self._stride is not None and self._stride > window:
            raise PicoError(f"stride = {self._stride} is more than window = {window}", "tokens between windows would go unscored")
        self._documents = open_documents(
            self._data, split=self._split, text_field=self._text_field, limit=self._limit, given=given
        )

    def run(self, scorer: Scorer) -> list[Score]:
        return scores_of(self.tallies(scorer, self._window_for(scorer)))

    def tallies(self, scorer: Scorer, window: int) -> dict[str, Tally]:
        """Loss, tokens and bytes of every document, by domain, in the order of the data."""
        tallies: dict[str, Tally] = {}
        for chunk in self._checked_documents.chunks(scorer):
            windows = [list(windows_of(document.tokens, window, self._stride or window)) for document in chunk]
            log_probs = scorer.log_probs([sequence for document in windows for sequence in document])
            document_of = np.repeat(np.arange(len(chunk)), [len(each) for each in windows])
            sums = np.bincount(document_of, weights=log_probs, minlength=len(chunk))
            for document, log_prob in zip(chunk, sums, strict=True):
                tally = tallies.setdefault(document.domain, Tally())
                tally.add(-float(log_prob), len(document.tokens) - 1, document.bytes)
        return tallies

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        window = self._window_for(scorer)
        return {
            "data": self._data or "the run's prepared data",
            "data_hash": self._checked_documents.data_hash,
            "split": self._split,
            "window": window,
            "stride": self._stride or window,
            "limit": self._limit,
        }

    @property
    def _checked_documents(self) -> Documents:
        assert self._documents is not None, "check comes before run"
        return self._documents

    def _window_for(self, scorer: Scorer) -> int:
        return min(self._window or scorer.max_seq_len, scorer.max_seq_len)


def windows_of(tokens: NDArray[np.integer[Any]], window: int, stride: int) -> Iterator[TokenSequence]:
    """Sequences that score every token but the first exactly once, each predicting at most `window` tokens.

    With stride = window they share no prediction and one token; only the last, shorter one reaches back to fill its window.
    That is lm-eval's rolling log-likelihood.
    """
    predictions = len(tokens) - 1
    end = min(window, predictions)
    if end > 0:
        yield TokenSequence(tokens[: end + 1], 1)
    while end < predictions:
        done, end = end, min(end + stride, predictions)
        begin = max(0, end - window)
        yield TokenSequence(tokens[begin : end + 1], done + 1 - begin)


@dataclass
class Tally:
    """Loss, tokens and bytes of each document of a domain."""

    losses: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    bytes: list[int | None] = field(default_factory=list)

    def add(self, loss: float, tokens: int, size: int | None) -> None:
        self.losses.append(loss)
        self.tokens.append(tokens)
        self.bytes.append(size)

    def loss_per_token(self) -> Estimate:
        """Nats per token; documents are independent observations."""
        return ratio_of(self.losses, self.tokens)._replace(n=sum(self.tokens))

    def bits_per_byte(self) -> Estimate | None:
        """Bits per byte of UTF-8 text, which does not depend on the tokenizer; None if the text is not known."""
        sizes = [size for size in self.bytes if size is not None]
        if len(sizes) < len(self.bytes):
            return None
        return ratio_of(np.asarray(self.losses) / NATS_PER_BIT, sizes)._replace(n=sum(sizes))


def scores_of(tallies: dict[str, Tally]) -> list[Score]:
    """Scores of all documents together, of each domain, and of the unweighted average over domains."""
    whole = Tally()
    for tally in tallies.values():
        for loss, tokens, size in zip(tally.losses, tally.tokens, tally.bytes, strict=True):
            whole.add(loss, tokens, size)
    scores = _scores_of_group("all", whole.loss_per_token(), whole.bits_per_byte())
    if len(tallies) < 2:
        return scores
    for domain in sorted(tallies):
        scores += _scores_of_group(f"domain/{domain}", tallies[domain].loss_per_token(), tallies[domain].bits_per_byte())
    return scores + _macro_average(list(tallies.values()))


def _macro_average(domains: Sequence[Tally]) -> list[Score]:
    losses = [tally.loss_per_token() for tally in domains]
    bits = [each for tally in domains if (each := tally.bits_per_byte()) is not None]
    scores = [
        _score("loss_per_token", mean_of_estimates(losses), "macro_average"),
        _score("perplexity", mean_of_estimates([exponential_of(loss) for loss in losses]), "macro_average"),
    ]
    if len(bits) == len(domains):
        scores.append(_score("bits_per_byte", mean_of_estimates(bits), "macro_average"))
    return scores


def _scores_of_group(group: str, loss: Estimate, bits: Estimate | None) -> list[Score]:
    scores = [_score("perplexity", exponential_of(loss), group), _score("loss_per_token", loss, group)]
    return scores if bits is None else [*scores, _score("bits_per_byte", bits, group)]


def _score(measure: str, estimate: Estimate, group: str) -> Score:
    note = "" if estimate.value is not None else "not a finite number"
    return Score("perplexity", measure, estimate.value, group, estimate.standard_error, estimate.n, note=note)
