"""Multiple choice by likelihood: each choice is a continuation of a context; the most probable one is the model's answer.

The benchmarks beside this file say how a record becomes an `Item`; everything else about them is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from picolm.base.errors import PicoError
from picolm.evaluate.contract import EVALUATIONS, Evaluation, Given
from picolm.evaluate.estimates import Estimate, mean_of
from picolm.evaluate.files import Record, data_files, hash_of_files, number_of, read_records, text_of, texts_of
from picolm.evaluate.scorer import Continuation, Scorer, encode_continuations
from picolm.records.evaluation import Score
from picolm.records.items import ItemValues


class Item(NamedTuple):
    """A question: choices continue the context; `correct` are the positions of the right ones."""

    context: str
    choices: tuple[str, ...]
    correct: tuple[int, ...]
    group: str = ""
    """A subset that is scored on its own too; empty for none."""


class Answer(NamedTuple):
    """What a model makes of an item: log p(choice | context) of each choice."""

    item: Item
    log_probs: NDArray[np.float64]

    def is_right(self, preference: NDArray[np.float64]) -> bool:
        """Whether the one preferred choice is correct. A tie for the first place with a wrong choice is not right."""
        best = np.flatnonzero(preference == preference.max())
        return all(int(index) in self.item.correct for index in best)

    def is_tied(self) -> bool:
        """Whether right and wrong choices share the first place."""
        best = np.flatnonzero(self.log_probs == self.log_probs.max())
        return len({int(index) in self.item.correct for index in best}) > 1

    @property
    def per_character(self) -> NDArray[np.float64]:
        """Log-probabilities by length of the choices in characters, as in lm-eval's `acc_norm`."""
        lengths = np.array([len(choice) for choice in self.item.choices], dtype=np.float64)
        return np.divide(self.log_probs, lengths)

    @property
    def right_log_prob(self) -> float:
        """Log-probability of the first right choice."""
        return float(self.log_probs[self.item.correct[0]])

    @property
    def right_share(self) -> float:
        """Probability of the right choices among all: p(right) / p(any), in logarithms so that nothing underflows."""
        right = [self.log_probs[index] for index in self.item.correct]
        return float(np.exp(np.logaddexp.reduce(right) - np.logaddexp.reduce(self.log_probs)))


@dataclass
class Items:
    """The items of a benchmark: where they come from, and once loaded, the items."""

    data: str
    split: str
    hub_config: str
    delimiter: str
    limit: int | None
    item_of: Callable[[Record], Item]

    def __post_init__(self) -> None:
        self.loaded: list[Item] = []
        self.answers: list[Answer] = []
        self.data_hash = ""

    def load(self, given: Given) -> None:
        """Read the items and make sure that the model can hold every choice."""
        files = data_files(self.data, split=self.split, hub_config=self.hub_config)
        records = (record for file in files for record in read_records(file))
        self.loaded = [_checked(self.item_of(record), record.place) for record in records][: self.limit]
        self.data_hash = hash_of_files(files)
        if given.tokenizer is not None and given.max_seq_len is not None:
            self._check_lengths(given.tokenizer.encode_batch, given.max_seq_len)

    def answer(self, scorer: Scorer) -> tuple[list[Answer], str]:
        """The answers of the scorer's model, and a note about contexts that had to be cut."""
        encoded = encode_continuations(scorer, [pair for item in self.loaded for pair in self._pairs(item)])
        log_probs = scorer.log_probs([each.sequence for each in encoded])
        ends = np.cumsum([len(item.choices) for item in self.loaded])
        parts = np.split(log_probs, ends[:-1])
        self.answers = [Answer(item, part) for item, part in zip(self.loaded, parts, strict=True)]
        return self.answers, _note_of_cuts(encoded)

    def right(self, measure: str) -> ItemValues:
        """Whether each item was right in the last run, by `accuracy` or `accuracy_per_character`."""
        by_length = measure == "accuracy_per_character"
        preferences = [answer.per_character if by_length else answer.log_probs for answer in self.answers]
        pairs = zip(self.answers, preferences, strict=True)
        return ItemValues(measure, [float(answer.is_right(preference)) for answer, preference in pairs])

    def settings(self, prompt: str) -> dict[str, Any]:
        """What the answers depend on."""
        source = {"data": self.data, "data_hash": self.data_hash, "split": self.split, "limit": self.limit}
        return {**source, "prompt": prompt, "delimiter": self.delimiter, "ties": "count as wrong"}

    def _pairs(self, item: Item) -> list[tuple[str, str]]:
        return [(item.context, self.delimiter + choice) for choice in item.choices]

    def _check_lengths(self, encode_batch: Callable[[Sequence[str]], Sequence[Any]], longest: int) -> None:
        choices = list(dict.fromkeys(self.delimiter + choice for item in self.loaded for choice in item.choices))
        for choice, tokens in zip(choices, encode_batch(choices), strict=True):
            if len(tokens) > longest:
                raise PicoError(
                    f"the choice {choice[:60]!r} has {len(tokens)} tokens; the model accepts {longest}",
                    "use a model with a longer context, or leave this evaluation out",
                )


def _checked(item: Item, place: str) -> Item:
    if len(item.choices) < 2:
        raise PicoError(f"data: {place} has {len(item.choices)} choices", "at least two are needed")
    if not item.correct or not all(0 <= index < len(item.choices) for index in item.correct):
        raise PicoError(f"data: {place}: right answer {list(item.correct)} of {len(item.choices)} choices counted from 0")
    if not all(item.choices):
        raise PicoError(f"data: {place} has an empty choice")
    return item


def _note_of_cuts(encoded: Sequence[Continuation]) -> str:
    cut = sum(each.cut_tokens > 0 for each in encoded)
    return f"{cut} of {len(encoded)} contexts lost their beginning to fit the model" if cut else ""


def choice_scores(answers: Sequence[Answer], note: str = "") -> list[Score]:
    """Accuracy, length-normalised accuracy and mean log-probability of the right answer: of all items and of each group."""
    groups = sorted({answer.item.group for answer in answers} - {""})
    scores = _scores_of_group("all", answers, note)
    for group in groups if len(groups) > 1 else ():
        scores += _scores_of_group(f"group/{group}", [answer for answer in answers if answer.item.group == group], "")
    return scores


def _scores_of_group(group: str, answers: Sequence[Answer], note: str) -> list[Score]:
    chance = float(np.mean([len(answer.item.correct) / len(answer.item.choices) for answer in answers]))
    ties = sum(answer.is_tied() for answer in answers)
    tied = f"{ties} tied item{'s' if ties > 1 else ''}, counted as wrong" if ties else ""
    notes = "; ".join(filter(None, (note, tied)))
    right = mean_of([answer.is_right(answer.log_probs) for answer in answers])
    right_by_length = mean_of([answer.is_right(answer.per_character) for answer in answers])
    log_prob = mean_of([answer.right_log_prob for answer in answers])
    return [
        choice_score("accuracy", right, group, chance, notes),
        choice_score("accuracy_per_character", right_by_length, group, chance, note),
        choice_score("log_prob_of_answer", log_prob, group, None, note),
    ]


def choice_score(measure: str, estimate: Estimate, group: str, baseline: float | None, note: str) -> Score:
    """An estimate over items as a score."""
    return Score("multiple_choice", measure, estimate.value, group, estimate.standard_error, estimate.n, baseline, note)


class ByLikelihood(Evaluation):
    """A benchmark of multiple choice: which items it has and in which words they are asked. `prompt`: kept with the scores."""

    headline = "accuracy"
    prompt: str

    def __init__(self, items: Items) -> None:
        self.items = items

    def check(self, given: Given) -> None:
        self.items.load(given)

    def run(self, scorer: Scorer) -> list[Score]:
        return choice_scores(*self.items.answer(scorer))

    def item_values(self) -> ItemValues:
        return self.items.right(self.headline)

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        return self.items.settings(self.prompt)


@EVALUATIONS.register("multiple_choice")
class MultipleChoice(ByLikelihood):
    """Accuracy on questions of one's own, from records with `query`, `choices` and `gold`."""

    prompt = "{query}"

    def __init__(self, *, data: str, split: str = "", delimiter: str = " ", limit: PositiveInt | None = None) -> None:
        """`data`: a JSONL, JSON or parquet file, a folder of them, or a Hub name; `query` is the context, `choices` a list of
        texts, `gold` the position of the right one, counted from 0. `delimiter`: text between the two. `limit`: items used.
        """
        super().__init__(Items(data, split, "", delimiter, limit, preprocessed_item))


def preprocessed_item(record: Record) -> Item:
    """An item from `query`, `choices` and `gold`."""
    return Item(text_of(record, "query"), texts_of(record, "choices"), (number_of(record, "gold"),))
