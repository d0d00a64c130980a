"""HellaSwag: which of four endings continues a scene? Source: Zellers et al. (2019); prompt as in lm-eval's task `hellaswag`."""

from __future__ import annotations

import re

from pydantic import PositiveInt

from picolm.evaluate.choice import ByLikelihood, Item, Items, preprocessed_item
from picolm.evaluate.contract import EVALUATIONS
from picolm.evaluate.files import Record, number_of, text_of, texts_of


@EVALUATIONS.register("hellaswag")
class HellaSwag(ByLikelihood):
    """Accuracy in choosing the ending of a scene out of four, by likelihood."""

    headline = "accuracy_per_character"
    prompt = "{activity_label}: {ctx_a} {Ctx_b}"

    def __init__(
        self,
        *,
        data: str = "Rowan/hellaswag",
        split: str = "validation",
        delimiter: str = " ",
        limit: PositiveInt | None = None,
    ) -> None:
        """`data`: records in the original form or preprocessed (`query`, `choices`, `gold`): a file, a folder or a Hub name.

        `delimiter`: text between scene and ending. `limit`: items used, from the start.
        """
        super().__init__(Items(data, split, "", delimiter, limit, hellaswag_item))


def hellaswag_item(record: Record) -> Item:
    """An item in the original form, cleaned up, or a preprocessed one as it is."""
    if "query" in record.values:
        return preprocessed_item(record)
    scene = f"{text_of(record, 'ctx_a')} {text_of(record, 'ctx_b').capitalize()}"
    return Item(
        context=without_markup(f"{text_of(record, 'activity_label')}: {scene}"),
        choices=tuple(without_markup(ending) for ending in texts_of(record, "endings")),
        correct=(number_of(record, "label"),),
        group=str(record.values.get("source_id", "")).partition("~")[0],
    )


def without_markup(text: str) -> str:
    """The text without the bracketed marks of WikiHow: a title becomes a full stop, others vanish."""
    with_stops = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", with_stops).replace("  ", " ")
