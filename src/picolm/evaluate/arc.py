"""ARC-Easy: questions of school science. Source: Clark et al. (2018); prompt as in lm-eval's task `arc_easy`."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveInt

from picolm.base.errors import PicoError, suggestion
from picolm.evaluate.choice import Item, Items, choice_scores
from picolm.evaluate.contract import EVALUATIONS, Evaluation, Given, ItemValues
from picolm.evaluate.files import Record, text_of, value_of
from picolm.evaluate.scorer import Scorer
from picolm.records.evaluation import Score


@EVALUATIONS.register("arc_easy")
class ArcEasy(Evaluation):
    """Accuracy on questions of school science with three to five choices, by likelihood."""

    headline = "accuracy"

    def __init__(
        self,
        *,
        data: str = "allenai/ai2_arc",
        split: str = "test",
        delimiter: str = " ",
        limit: PositiveInt | None = None,
    ) -> None:
        """`data`: records with `question`, `choices` (`text`, `label`) and `answerKey`: a file, a folder or a Hub name.

        `delimiter`: text between `Answer:` and a choice. `limit`: items used, from the start.
        """
        self.items = Items(data, split, "ARC-Easy", delimiter, limit, arc_item)

    def check(self, given: Given) -> None:
        self.items.load(given)

    def run(self, scorer: Scorer) -> list[Score]:
        return choice_scores(*self.items.answer(scorer))

    def item_values(self) -> ItemValues:
        return self.items.right(self.headline)

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        return self.items.settings("Question: {question}\nAnswer:")


def arc_item(record: Record) -> Item:
    """An item; labels may be letters or digits, and the key must be one of them."""
    choices = value_of(record, "choices")
    texts, labels = (choices.get("text"), choices.get("label")) if isinstance(choices, dict) else (None, None)
    if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
        raise PicoError(f"data: {record.place}: `choices` must hold the lists `text` and `label`, of one length")
    key = text_of(record, "answerKey")
    if key not in labels:
        raise PicoError(f"data: {record.place}: answerKey `{key}` is none of the labels", suggestion(key, labels))
    return Item(f"Question: {text_of(record, 'question')}\nAnswer:", tuple(texts), (labels.index(key),))
