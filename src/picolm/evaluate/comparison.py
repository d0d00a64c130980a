"""Models side by side in the shape of the paper's Table 2: one row a model, one column an evaluation's headline number."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from picolm.base.errors import PicoError
from picolm.evaluate.contract import NamedEvaluation
from picolm.evaluate.estimates import Estimate, mean_of, ratio_of
from picolm.records.evaluation import Score
from picolm.records.items import ItemValues


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


class Difference(NamedTuple):
    """How a model's headline number differs from the first model's, measured item by item."""

    model: str
    first: str
    label: str
    measure: str
    value: float
    standard_error: float | None
    items: int

    def shown(self) -> str:
        return f"{self.value:+.4f}" + ("" if self.standard_error is None else f" ± {self.standard_error:.4f}")

    def __str__(self) -> str:
        return f"{self.model} - {self.first}, {self.label}: {self.shown()} {self.measure} (paired)"


def differences(rows: Sequence[ModelRow]) -> list[Difference]:
    """For each model but the first and each evaluation of both: the paired difference. None where the items are not the same."""
    measured = [row for row in rows if row.items]
    found = []
    for row in measured[1:]:
        first = measured[0]
        for label in row.cells:
            if label in row.items and label in first.items:
                estimate = _difference(row.items[label], first.items[label])
                if estimate is not None and estimate.value is not None:
                    measure = row.items[label].measure
                    gap, error = estimate.value, estimate.standard_error
                    found.append(Difference(row.model, first.model, label, measure, gap, error, estimate.n))
    return found


def _difference(mine: ItemValues, other: ItemValues) -> Estimate | None:
    if mine.measure != other.measure or len(mine.values) != len(other.values):
        return None
    gap = np.asarray(mine.values) - np.asarray(other.values)
    if mine.weights is None:
        return mean_of(gap, mine.clusters)
    if other.weights is not None and list(mine.weights) == list(other.weights):
        return ratio_of(gap, mine.weights)
    return None  # other tokens: losses per token of different tokenizers have no common unit


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
    kinds = ("", "_standard_error", "_difference", "_difference_standard_error")
    writer.writerow(["model", "parameters", "tokens", *(label + kind for label in labels for kind in kinds), "source"])
    gaps = {(each.model, each.label): each for each in differences(rows)}
    for row in rows:
        numbers: list[Any] = []
        for label in labels:
            cell, gap = row.cells.get(label), gaps.get((row.model, label))
            numbers += ["", ""] if cell is None else [cell.value, cell.standard_error]
            numbers += ["", ""] if gap is None else [gap.value, gap.standard_error]
        writer.writerow([row.model, row.parameters, row.tokens, *numbers, row.source])
    return text.getvalue()


def _markdown(rows: Sequence[ModelRow], labels: Sequence[str]) -> str:
    table = [["model", "parameters", "tokens", *labels]]
    table += [[_marked(row), row.parameters, row.tokens, *_shown_cells(row, labels)] for row in rows]
    found = differences(rows)
    below = f"\n{_caption(found)}\n\n{_markdown_table(_difference_cells(found))}" if found else ""
    return _markdown_table(table) + _footnote(rows) + below


DIFFERENCE_COLUMNS = ("model", "evaluation", "measure", "items", "difference")


def _caption(found: Sequence[Difference]) -> str:
    return f"Differences from {found[0].first}, item by item (paired), with their standard errors:"


def _difference_cells(found: Sequence[Difference]) -> list[list[str]]:
    lines = [[each.model, each.label, each.measure, f"{each.items:,}", each.shown()] for each in found]
    return [list(DIFFERENCE_COLUMNS), *lines]


def _markdown_table(table: Sequence[Sequence[str]]) -> str:
    """The first line is the head; the first column is text."""
    widths = [max(3, *(len(line[column]) for line in table)) for column in range(len(table[0]))]
    head, *body = (
        _line([_padded(cell, width, column) for column, (cell, width) in enumerate(zip(line, widths, strict=True))])
        for line in table
    )
    rule = _line(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join([head, rule, *body]) + "\n"


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
    table = [["model", "parameters", "tokens", *labels]]
    table += [[_marked(row), row.parameters, row.tokens, *_shown_cells(row, labels)] for row in rows]
    notes = "".join(f"% {line}\n" for line in _footnote(rows).split("\n") if line)
    found = differences(rows)
    below = f"\n% {_caption(found)}\n{_latex_table(_difference_cells(found))}" if found else ""
    return notes + _latex_table(table) + below


def _latex_table(table: Sequence[Sequence[str]]) -> str:
    head, *body = (" & ".join(_escaped(cell).replace("±", r"$\pm$") for cell in line) + r" \\" for line in table)
    columns = "l" + "r" * (len(table[0]) - 1)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


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
