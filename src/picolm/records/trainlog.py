"""`logs/train.jsonl`: one JSON object per logged step, in order. `step` counts the updates made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picolm.records import durable

if TYPE_CHECKING:
    import pandas


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one row; it reaches the file in a single write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n"
    with path.open("a", encoding="utf-8") as file:
        file.write(line)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole rows; a last line cut short by a kill is passed over."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def cut_after(path: Path, step: int) -> None:
    """Drop the rows after `step`: they will be written again by the resumed run."""
    rows = read_rows(path)
    kept = [row for row in rows if row["step"] <= step]
    if path.is_file():
        durable.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def read_log(path: Path) -> pandas.DataFrame:
    """The log as a table, one row per logged step."""
    import pandas

    return pandas.DataFrame(read_rows(path))
