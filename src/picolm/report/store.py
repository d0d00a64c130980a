"""All columns of numbers a page holds, each once: charts of the same checkpoints share their steps, tokens, layers and heads."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

FIGURES_KEPT = 6
"""Significant figures of numbers on the page."""


@dataclass
class ColumnStore:
    """Columns as JSON text, in the order they were first asked for."""

    texts: list[str] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def add_table(self, table: pandas.DataFrame) -> dict[str, Any]:
        """A table as `{"rows": n, "columns": {name: place in the store}}`."""
        return {
            "rows": len(table),
            "columns": {str(name): self._add(packed(plain_values(table[name]))) for name in table.columns},
        }

    def _add(self, column: Any) -> int:
        text = json.dumps(column, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        place = self._places.setdefault(text, len(self.texts))
        if place == len(self.texts):
            self.texts.append(text)
        return place

    def json(self) -> str:
        """The whole store as one JSON list."""
        return f"[{','.join(self.texts)}]"


def plain_values(column: pandas.Series[Any]) -> list[Any]:
    """The values of a column as JSON knows them; what is undefined or not finite is None."""
    return [_plain(value) for value in column.tolist()]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int) else None


def packed(values: list[Any]) -> Any:
    """Values with numbers shortened; where few differ, `{"of": the different ones, "at": which one each is}`."""
    short = [_short(value) for value in values]
    distinct = list(dict.fromkeys(short))
    if len(short) < 8 or len(distinct) * 3 > len(short):
        return short
    place = {value: index for index, value in enumerate(distinct)}
    return {"of": distinct, "at": [place[value] for value in short]}


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    rounded = float(f"{value:.{FIGURES_KEPT}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded
