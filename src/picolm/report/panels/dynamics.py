"""Learning dynamics: every metric on every part of the model, layer by layer, over training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import pandas

from picolm.records.names import DATA_TYPES
from picolm.report import charts
from picolm.report.definitions import describe_metric, metric_name, title_of
from picolm.report.panels.contract import Block, Choice, Figure, Missing, Option, Panel, Remark, panel
from picolm.report.spectra import other_rows
from picolm.report.tables import ReportData, RunTables
from picolm.report.visible import visible_text

DEFINITION = """
Each chart follows one metric of one part of the network through training; each line is one layer, coloured from the first
to the last. Where a layer has several heads the line is their mean and the band reaches from the least to the greatest head.
A dotted line marks what pure noise of the same shape gives, where that is known. A click on a line, or a button of the legend,
sets one layer apart in every chart and draws its heads singly.

With several runs, a line is the mean over layers and over the runs of a series, or that of the layer chosen in the legend;
faint lines are runs; the band is the 95 % interval of the mean over runs from three on, the range of two.

Weights are those after the given number of updates. Gradients are those the optimiser received, before clipping;
updates are the change it made; activations are outputs of the part on the captured batch. Metrics compute in double
precision.
"""

_ORDER = {name: index for index, name in enumerate(DATA_TYPES)}
MATRIX = ["data_type", "split", "component", "part"]
MEASURE = ["metric", "options", "partner"]
NUMBERS = ["run", "variant", "seed", "step", "tokens", "layer", "head", *MEASURE, "value", "null", "note"]

Draw: TypeAlias = Callable[[pandas.DataFrame, pandas.DataFrame, str], Any]
"""From the rows of one metric on one matrix, their summary over heads and a title to an Altair chart."""


@panel("dynamics")
def dynamics(data: ReportData, *, most_steps: int = 80) -> Panel:
    """One chart per metric and part, one line per layer. `most_steps`: checkpoints drawn; more are thinned evenly."""
    rows = other_rows(data.rows)
    draw = partial(_trajectories, layers=data.layers) if data.single is not None else _runs
    blocks = matrix_blocks(rows, most_steps, draw) if len(rows) else []
    blocks += [_not_analysed(run) for run in data.runs if other_rows(run.rows).empty]
    definition = "\n\n".join([DEFINITION, *(describe_metric(name) for name in rows["metric"].drop_duplicates())])
    return Panel(
        "Learning dynamics",
        "What happens inside: how the structure of each layer changes while the model learns.",
        definition,
        tuple(blocks),
    )


def _not_analysed(run: RunTables) -> Block:
    return Missing(f"{run.name} has not been analysed: `pico analyze` applies metrics to its checkpoints.")


def matrix_blocks(rows: pandas.DataFrame, most_steps: int, draw: Draw) -> list[Block]:
    """A choice of matrices, each with one chart per metric, and remarks on what was thinned or is undefined."""
    blocks: list[Block] = [Choice("Matrix", matrix_options(rows, most_steps, draw), layer_legend=True)]
    steps = rows["step"].nunique()
    if steps > most_steps:
        blocks.append(thinning_remark(most_steps, steps))
    undefined = int(rows["value"].isna().sum())
    if undefined:
        blocks.append(Remark(f"{undefined:,} of {len(rows):,} values are undefined{_reasons(rows)}."))
    return blocks


def thinning_remark(kept: int, steps: int) -> Remark:
    """Says how many checkpoints are drawn and where the others are."""
    return Remark(f"Drawn at {kept} of {steps} checkpoints, first and last among them; the tables beside the page have all.")


def matrix_options(
    rows: pandas.DataFrame, most_steps: int, draw: Draw, *, prefix: str = "", kind: str = "lines"
) -> tuple[Option, ...]:
    """One option per data type, component and part, with a chart for each of its metrics; `kind` tells apart their names."""
    steps = [int(step) for step in rows["step"].dropna().unique()]
    kept = rows[rows["step"].isin(charts.spaced_steps(steps, most_steps))]
    summary: Any = charts.over_heads(kept, by=[*MATRIX, *MEASURE]).groupby([*MATRIX, *MEASURE], sort=False)
    drawn = _Drawn(dict(iter(kept.groupby([*MATRIX, *MEASURE], sort=False))), dict(iter(summary)))
    grouped: Any = rows.groupby(MATRIX, sort=False)
    ordered = sorted(grouped, key=lambda item: matrix_order(item[0]))
    return tuple(
        Option(prefix + matrix_group(key), str(key[3]), _figures(part, key, drawn, draw, kind), remarks=_undrawn(part))
        for key, part in ordered
    )


class _Drawn(NamedTuple):
    """Rows at the checkpoints drawn, and their summary over heads, by matrix and measure."""

    rows: dict[Any, pandas.DataFrame]
    summaries: dict[Any, pandas.DataFrame]


def _undrawn(rows: pandas.DataFrame) -> tuple[str, ...]:
    """What cannot be drawn because no value is defined, and why."""
    grouped: Any = rows.groupby(MEASURE, sort=False)
    empty = [(metric_title(*key), part) for key, part in grouped if part["value"].isna().all()]
    return tuple(f"{title} has no defined value{_reasons(part)}." for title, part in empty)


def matrix_order(key: Sequence[Any]) -> tuple[object, ...]:
    """Where a matrix (data type, split, component, part) stands in a list."""
    data_type, split, component, part = key
    return component != "simple", component, _ORDER.get(data_type, len(_ORDER)), split, part


def matrix_group(key: Sequence[Any]) -> str:
    """What sort of matrix it is, in words: `Weights`, `OV circuit: activations (val)`."""
    data_type, split, component, _ = key
    words = data_type.replace("_", " ") + (f" ({split})" if split else "")
    return words.capitalize() if component == "simple" else f"{title_of(component)}: {words}"


def _reasons(rows: pandas.DataFrame) -> str:
    notes = [note for note in rows.loc[rows["value"].isna(), "note"].dropna().drop_duplicates() if note]
    shown = "; ".join(notes[:3]) + ("; and more" if len(notes) > 3 else "")
    return f": {shown}" if shown else ""


def _figures(rows: pandas.DataFrame, matrix: tuple[Any, ...], drawn: _Drawn, draw: Draw, kind: str) -> tuple[Figure, ...]:
    figures = []
    owner = rows["run"].iloc[0] if rows["run"].nunique() == 1 else "runs"
    data_type, split, component, name = matrix
    grouped: Any = rows.groupby(MEASURE, sort=False)
    for measure, part in grouped:
        key = (*matrix, *measure)
        if key not in drawn.summaries:
            continue
        title = metric_title(*measure)
        stem = "-".join(str(piece) for piece in (owner, kind, component, data_type, split, name, title) if piece)
        chart = draw(drawn.rows[key], drawn.summaries[key], title)
        figures.append(Figure(stem, title, chart, part[NUMBERS]))
    return tuple(figures)


def _trajectories(rows: pandas.DataFrame, summary: pandas.DataFrame, title: str, *, layers: list[int]) -> Any:
    return charts.metric_trajectories(summary, title=title, layers=layers, heads=rows)


def _runs(rows: pandas.DataFrame, summary: pandas.DataFrame, title: str) -> Any:
    return charts.layers_of_runs(rows, title=title)


def metric_title(metric: Any, options: Any, partner: Any) -> str:
    """`Norm (nuclear)`, `CKA (debiased) with step 100`: the metric, its options and what it compares with."""
    try:
        values = json.loads(options or "{}")
    except ValueError:
        values = {"options": options}
    told = ", ".join(_option(name, value) for name, value in values.items()) if isinstance(values, dict) else str(values)
    title = metric_name(str(metric)) + (f" ({visible_text(told)})" if told else "")
    return title + partner_words(str(partner or ""))


def partner_words(partner: str) -> str:
    """` with step 600`, ` with the checkpoint before`; nothing where the component itself lays two matrices side by side."""
    if partner in ("", "beside"):
        return ""
    if partner == "step=previous":
        return " with the checkpoint before"
    return " with " + ", ".join(piece.replace("=", " ") for piece in partner.split(","))


def _option(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"not {words}"
    return value if isinstance(value, str) else f"{words} {value}"
