"""Models side by side in the shape of the paper's Table 2: one row a model, one column an evaluation's headline number."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from picolm.base.errors import PicoError
from picolm.evaluate.contract import ItemValues, NamedEvaluation
from picolm.evaluate.estimates import mean_of, ratio_of
from picolm.records.evaluation import Score


class Cell(NamedTuple):
    """A headline number; shares are shown in percent, as in the paper."""

    value: float
    standard_error: float | None = None

    def shown(self) -> str:
        return f"{self.value:.2f}" + ("" if self.standard_error is None else f" ± {self.standard_error:.2f}")


@dataclass(frozen=True)
class ModelRow:
    """One model of the table."""

    model: str
    parameters: str
    tokens: str
    cells: dict[str, Cell]
    """By label of the evaluation."""
    source: str = "measured"
    """`measured`, or where the numbers are quoted from."""
    items: dict[str, ItemValues] = field(default_factory=dict)
    """By label: the values of single items, for paired differences."""


_SHARES = ("accuracy", "accuracy_per_character", "probability_of_true")


def headline_cells(evaluations: Sequence[NamedEvaluation], scores: Sequence[Score]) -> dict[str, Cell]:
    """By label, the headline number of each evaluation that has one."""
    cells: dict[str, Cell] = {}
    for named in evaluations:
        mine = [score for score in scores if score.evaluation == named.label and score.group == "all" and score.value is not None]
        wanted = named.evaluation.headline or (mine[0].measure if mine else "")
        for score in mine:
            if score.measure == wanted and score.value is not None:
                scale = 100.0 if wanted in _SHARES else 1.0
                error = None if score.standard_error is None else scale * score.standard_error
                cells[named.label] = Cell(scale * score.value, error)
    return cells


def quoted_rows() -> list[ModelRow]:
    """The rows of the paper's Table 2, marked as quoted."""
    content = json.loads((files("picolm.evaluate") / "reference" / "table2.json").read_text(encoding="utf-8"))
    return [
        ModelRow(
            model=f"{row['family']} {row['parameters']}",
            parameters=row["parameters"],
            tokens=row["tokens"],
            cells={column: Cell(row[column]) for column in content["columns"]},
            source=f"quoted: {content['source']}",
        )
        for row in content["rows"]
    ]


def differences(rows: Sequence[ModelRow]) -> list[str]:
    """One sentence for each model and evaluation: how it differs from the first model, item by item, with a paired error."""
    if len(rows) < 2:
        return []
    first, *others = rows
    sentences = []
    for row in others:
        for label in row.cells:
            if label in row.items and label in first.items:
                sentence = _difference(row.items[label], first.items[label])
                sentences += [f"{row.model} - {first.model}, {label}: {sentence}"] if sentence else []
    return sentences


def _difference(mine: ItemValues, other: ItemValues) -> str:
    if mine.measure != other.measure or len(mine.values) != len(other.values):
        return ""
    gap = np.asarray(mine.values) - np.asarray(other.values)
    if mine.weights is None:
        estimate = mean_of(gap, mine.clusters)
    elif other.weights is not None and list(mine.weights) == list(other.weights):
        estimate = ratio_of(gap, mine.weights)
    else:
        return ""  # other tokens: losses per token of different tokenizers have no common unit
    error = "" if estimate.standard_error is None else f" ± {estimate.standard_error:.4f}"
    return f"{estimate.value:+.4f}{error} {mine.measure} (paired)"


FORMATS = ("csv", "md", "tex")


def render_table(rows: Sequence[ModelRow], kind: str) -> str:
    """The table as CSV, Markdown or LaTeX."""
    labels = list(dict.fromkeys(label for row in rows for label in row.cells))
    if kind == "csv":
        return _csv(rows, labels)
    if kind == "md":
        return _markdown(rows, labels)
    if kind == "tex":
        return _latex(rows, labels)
    raise PicoError(
        f"--output: .{kind} is not a format of tables", "end the name in " + ", ".join(f".{each}" for each in FORMATS)
    )


def _csv(rows: Sequence[ModelRow], labels: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [column for label in labels for column in (label, f"{label}_standard_error")]
    writer.writerow(["model", "parameters", "tokens", *columns, "source"])
    for row in rows:
        cells = [row.cells.get(label) for label in labels]
        numbers = [number for cell in cells for number in (("", "") if cell is None else (cell.value, cell.standard_error))]
        writer.writerow([row.model, row.parameters, row.tokens, *numbers, row.source])
    return text.getvalue()


def _markdown(rows: Sequence[ModelRow], labels: Sequence[str]) -> str:
    table = [["model", "parameters", "tokens", *labels]]
    table += [[_marked(row), row.parameters, row.tokens, *_shown_cells(row, labels)] for row in rows]
    widths = [max(3, *(len(line[column]) for line in table)) for column in range(len(table[0]))]
    head, *body = (
        _line([_padded(cell, width, column) for column, (cell, width) in enumerate(zip(line, widths, strict=True))])
        for line in table
    )
    rule = _line(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join([head, rule, *body]) + "\n" + _footnote(rows)


def _padded(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _shown_cells(row: ModelRow, labels: Sequence[str]) -> list[str]:
    return [row.cells[label].shown() if label in row.cells else "" for label in labels]


def _marked(row: ModelRow) -> str:
    return row.model if row.source == "measured" else f"{row.model} (quoted)"


def _footnote(rows: Sequence[ModelRow]) -> str:
    sources = dict.fromkeys(row.source for row in rows if row.source != "measured")
    return "".join(f"\n{source[:1].upper()}{source[1:]}\n" for source in sources)


def _latex(rows: Sequence[ModelRow], labels: Sequence[str]) -> str:
    head = " & ".join(_escaped(cell) for cell in ("model", "parameters", "tokens", *labels))
    body = [
        " & ".join(
            _escaped(cell).replace("±", r"$\pm$")
            for cell in (_marked(row), row.parameters, row.tokens, *_shown_cells(row, labels))
        )
        for row in rows
    ]
    lines = [rf"\begin{{tabular}}{{l{'r' * (2 + len(labels))}}}", r"\toprule", head + r" \\", r"\midrule"]
    notes = [f"% {line}" for line in _footnote(rows).split("\n") if line]
    return "\n".join([*notes, *lines, *(line + r" \\" for line in body), r"\bottomrule", r"\end{tabular}"]) + "\n"


def _escaped(text: str) -> str:
    return "".join("\\" + character if character in "_%&#$" else character for character in text)


def short_count(number: int | None) -> str:
    """11234567 -> `11M`; nothing for an unknown number."""
    if number is None:
        return ""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
