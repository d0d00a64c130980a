"""Learning dynamics: every metric on every part of the model, layer by layer, over training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas

from picolm.records.names import DATA_TYPES
from picolm.report import charts
from picolm.report.definitions import describe_metric, metric_name
from picolm.report.panels.contract import Block, Choice, Figure, Missing, Option, Panel, Remark, panel
from picolm.report.tables import ReportData, RunTables, visible_text

DEFINITION = """
Each chart follows one metric of one part of the network through training; each line is one layer, coloured from the
first to the last. Where a layer has several heads the line is their mean and the band reaches from the least to the
greatest head. A dotted line marks what pure noise of the same shape gives, where that is known.

Weights are those after the given number of updates. Gradients are those the optimiser received, before clipping;
updates are the change it made; activations are outputs of the part on the captured batch. Metrics compute in double
precision.
"""

_ORDER = {name: index for index, name in enumerate(DATA_TYPES)}
MATRIX = ["data_type", "split", "component", "part"]
MEASURE = ["metric", "options", "partner"]


@panel("dynamics")
def dynamics(data: ReportData, *, most_steps: int = 120) -> Panel:
    """One chart per metric and part, one line per layer. `most_steps`: checkpoints drawn; more are thinned evenly."""
    blocks: list[Block] = []
    for run in data.runs:
        blocks += _run_blocks(run, most_steps, data.layers)
    metrics = list(data.rows["metric"].drop_duplicates()) if len(data.rows) else []
    definition = "\n\n".join([DEFINITION, *(describe_metric(name) for name in metrics)])
    return Panel(
        "Learning dynamics",
        "What happens inside: how the structure of each layer changes while the model learns.",
        definition,
        tuple(blocks),
    )


def _run_blocks(run: RunTables, most_steps: int, layers: list[int]) -> list[Block]:
    if run.rows.empty:
        return [Missing(f"{run.name} has not been analysed: `pico analyze` applies metrics to its checkpoints.")]
    steps = [int(step) for step in run.rows["step"].dropna().unique()]
    kept = charts.spaced_steps(steps, most_steps)
    by_matrix: Any = run.rows.groupby(MATRIX, sort=False)
    options = [
        Option(_group(key), str(key[3]), _figures(run, part, kept, layers))
        for key, part in sorted(by_matrix, key=lambda item: _order(item[0]))
    ]
    blocks: list[Block] = [Choice("Matrix", tuple(options), layer_legend=True)]
    if len(kept) < len(steps):
        blocks.append(
            Remark(f"Drawn at {len(kept)} of {len(steps)} checkpoints, first and last among them; downloads and tables have all.")
        )
    undefined = int(run.rows["value"].isna().sum())
    if undefined:
        blocks.append(Remark(f"{undefined:,} of {len(run.rows):,} values are undefined{_reasons(run.rows)}."))
    return blocks


def _order(key: Sequence[Any]) -> tuple[object, ...]:
    data_type, split, component, part = key
    return component != "simple", component, _ORDER.get(data_type, len(_ORDER)), split, part


def _group(key: Sequence[Any]) -> str:
    data_type, split, component, _ = key
    words = data_type.replace("_", " ") + (f" ({split})" if split else "")
    return words.capitalize() if component == "simple" else f"{component.replace('_', ' ')}: {words}".capitalize()


def _reasons(rows: pandas.DataFrame) -> str:
    notes = [note for note in rows.loc[rows["value"].isna(), "note"].dropna().drop_duplicates() if note]
    shown = "; ".join(notes[:3]) + ("; and more" if len(notes) > 3 else "")
    return f": {shown}" if shown else ""


def _figures(run: RunTables, rows: pandas.DataFrame, steps: list[int], layers: list[int]) -> tuple[Figure, ...]:
    figures = []
    for (metric, options, partner), part in rows.groupby(MEASURE, sort=False):
        title = metric_title(metric, options, partner)
        data_type, split, component, name = (part[column].iloc[0] for column in MATRIX)
        stem = "-".join(str(piece) for piece in (run.name, component, data_type, split, name, title) if piece)
        shown = part[part["step"].isin(steps)]
        figures.append(Figure(stem, title, _chart(shown, title, layers), _numbers(part), caption=_caption(part)))
    return tuple(figures)


def metric_title(metric: Any, options: Any, partner: Any) -> str:
    """`Norm (nuclear)`, `CKA with step 100`: the metric, the options that matter and what it compares with."""
    try:
        values = json.loads(options or "{}")
    except ValueError:
        values = {"options": options}
    told = visible_text(", ".join(str(value) for value in values.values()) if isinstance(values, dict) else str(values))
    title = metric_name(str(metric)) + (f" ({told})" if told else "")
    return title + (f" with {str(partner).replace('=', ' ')}" if partner else "")


def _chart(part: pandas.DataFrame, title: str, layers: list[int]) -> object:
    return charts.metric_trajectories(part, title=title, layers=layers)


def _numbers(part: pandas.DataFrame) -> pandas.DataFrame:
    return part[["step", "tokens", "layer", "head", "metric", "options", "partner", "value", "null", "note"]]


def _caption(part: pandas.DataFrame) -> str:
    if part["value"].notna().any():
        return ""
    return f"No value is defined{_reasons(part)}."
