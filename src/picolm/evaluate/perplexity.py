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
from picolm.evaluate.documents import Documents, Source, open_documents
from picolm.evaluate.estimates import LARGEST_LOSS, Estimate, exponential_of, mean_of, mean_of_estimates, ratio_of
from picolm.evaluate.scorer import Scorer
from picolm.evaluate.sharing import TokenSequence
from picolm.records.evaluation import Score
from picolm.records.items import ItemValues

NATS_PER_BIT = float(np.log(2.0))


@EVALUATIONS.register("perplexity")
class Perplexity(Evaluation):
    """Loss per token (nats), perplexity and bits per byte of texts or token rows, by domain."""

    headline = "perplexity"

    def __init__(
        self,
        *,
        data: str | None = None,
        split: str = "val",
        window: PositiveInt | None = None,
        stride: PositiveInt | None = None,
        text_field: str = "text",
        domain_field: str | None = None,
        prefix: bool = True,
        limit: PositiveInt | None = None,
    ) -> None:
        """`data`: JSONL, JSON or parquet of text or of token ids (`input_ids`), a file or a folder of them, prepared data, or a
        Hub name; null: the run's prepared data. Each file is a domain, unless `domain_field` names a column that says it.

        `window`: tokens predicted at once; null: as many as the model accepts. `stride`: tokens between windows; null: the
        window, so that they are disjoint (only the last of a document reaches back to be full). A smaller stride gives every
        token at least window - stride tokens of context. `prefix`: whether the prefix token stands before each text, so that
        its first token is scored. `limit`: documents (or rows) per file.
        """
        self._source = Source(data, split, text_field, domain_field, limit, prefix)
        self._window = window
        self._stride = stride
        self._documents: Documents | None = None
        self._tallies: dict[str, Tally] = {}

    def check(self, given: Given) -> None:
        window = self._window
        if window is not None and given.max_seq_len is not None and window > given.max_seq_len:
            raise PicoError(f"window = {window} is more than the {given.max_seq_len} tokens the model accepts", "leave it out")
        if window is not None and self._stride is not None and self._stride > window:
            raise PicoError(f"stride = {self._stride} is more than window = {window}", "tokens between windows would go unscored")
        self._documents = open_documents(self._source, given)

    def run(self, scorer: Scorer) -> list[Score]:
        self._tallies = self.tallies(scorer)
        return scores_of(self._tallies)

    def item_values(self) -> ItemValues:
        losses = [loss for tally in self._tallies.values() for loss in tally.losses]
        tokens = [float(count) for tally in self._tallies.values() for count in tally.tokens]
        return ItemValues("loss_per_token", losses, weights=tokens)

    def tallies(self, scorer: Scorer) -> dict[str, Tally]:
        """Loss, tokens and bytes of every document, by domain, in the order of the data."""
        assert self._documents is not None, "check comes before run"
        window = self._window_for(scorer)
        stride = min(self._stride or window, window)
        tallies: dict[str, Tally] = {}
        for chunk in self._documents.chunks(scorer):
            losses = losses_of([document.tokens for document in chunk], scorer, window, stride)
            for document, loss in zip(chunk, losses, strict=True):
                tallies.setdefault(document.domain, Tally()).add(loss, len(document.tokens) - 1, document.bytes)
        return tallies

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        assert self._documents is not None, "check comes before run"
        window = self._window_for(scorer)
        return {
            "data": self._source.data or "the run's prepared data",
            "data_hash": self._documents.data_hash,
            "split": self._source.split,
            "window": window,
            "stride": min(self._stride or window, window),
            "prefix": self._documents.starts_with_prefix,
            "limit": self._source.limit,
            "standard_error": "clustered by document",
        }

    def _window_for(self, scorer: Scorer) -> int:
        return min(self._window or scorer.max_seq_len, scorer.max_seq_len)


@EVALUATIONS.register("document_perplexity")
class DocumentPerplexity(Evaluation):
    """Mean over documents of each document's own perplexity, without a prefix token; short documents dominate it."""

    headline = "mean_document_perplexity"

    def __init__(
        self, *, data: str | None = None, split: str = "val", max_tokens: PositiveInt = 2048, limit: PositiveInt | None = None
    ) -> None:
        """`data`, `split`, `limit`: as for `perplexity`. `max_tokens`: tokens kept of a document, from its start."""
        self._source = Source(data, split, limit=limit, prefix=False)
        self._max_tokens = max_tokens
        self._documents: Documents | None = None
        self._perplexities: list[float] = []

    def check(self, given: Given) -> None:
        self._documents = open_documents(self._source, given)

    def run(self, scorer: Scorer) -> list[Score]:
        assert self._documents is not None, "check comes before run"
        length = self._length_for(scorer)
        self._perplexities, short = [], 0
        for chunk in self._documents.chunks(scorer):
            kept = [document.tokens[:length] for document in chunk if len(document.tokens) > 1]
            short += len(chunk) - len(kept)
            losses = losses_of(kept, scorer, length, length)
            self._perplexities += [
                float(np.exp(min(loss / (len(tokens) - 1), LARGEST_LOSS))) for loss, tokens in zip(losses, kept, strict=True)
            ]
        mean = mean_of(self._perplexities)
        note = f"{short} documents of a single token left out" if short else ""
        return [Score("document_perplexity", self.headline, mean.value, "all", mean.standard_error, mean.n, note=note)]

    def item_values(self) -> ItemValues:
        return ItemValues(self.headline, self._perplexities)

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        assert self._documents is not None, "check comes before run"
        return {
            "data": self._source.data or "the run's prepared data",
            "data_hash": self._documents.data_hash,
            "split": self._source.split,
            "max_tokens": self._length_for(scorer),
            "prefix": False,
            "limit": self._source.limit,
        }

    def _length_for(self, scorer: Scorer) -> int:
        return min(self._max_tokens, scorer.max_seq_len)


def losses_of(documents: Sequence[NDArray[np.integer[Any]]], scorer: Scorer, window: int, stride: int) -> list[float]:
    """Loss in nats of each document, summed over all its tokens but the first."""
    windows = [list(windows_of(tokens, window, stride)) for tokens in documents]
    log_probs = scorer.log_probs([sequence for document in windows for sequence in document])
    document_of = np.repeat(np.arange(len(documents)), [len(each) for each in windows])
    sums = np.bincount(document_of, weights=log_probs, minlength=len(documents))
    return [-float(each) for each in sums]


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
