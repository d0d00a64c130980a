"""ARC-Easy: questions of school science. Source: Clark et al. (2018); prompt as in lm-eval's task `arc_easy`."""

from __future__ import annotations

from pydantic import PositiveInt

from picolm.base.errors import PicoError, suggestion
from picolm.evaluate.choice import ByLikelihood, Item, Items
from picolm.evaluate.contract import EVALUATIONS
from picolm.evaluate.files import Record, text_of, value_of


@EVALUATIONS.register("arc_easy")
class ArcEasy(ByLikelihood):
    """Accuracy on questions of school science with three to five choices, by likelihood."""

    prompt = "Question: {question}\nAnswer:"

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
        super().__init__(Items(data, split, "ARC-Easy", delimiter, limit, arc_item))


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
