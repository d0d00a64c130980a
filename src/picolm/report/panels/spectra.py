"""Spectra: the singular values of each matrix over training, layer by layer, from the rows of metrics of one place."""

from __future__ import annotations

from typing import Any

import pandas

from picolm.report import charts
from picolm.report.definitions import describe_metric, metric_name
from picolm.report.panels.contract import Block, Choice, Figure, Missing, Option, Panel, panel
from picolm.report.panels.dynamics import MATRIX, NUMBERS, matrix_group, matrix_order, thinning_remark
from picolm.report.spectra import PLACE_METRICS, spectrum_rows
from picolm.report.tables import ReportData

DEFINITION = """
Each chart is one matrix of one layer. Lines follow its largest, median and smallest singular value; the nested bands hold the
middle of the spectrum between them, such as all but the upper and the lower tenth. Dotted lines mark where the largest, median
and smallest would lie if the entries were noise, for a matrix of the same shape: a spectrum that leaves them has learned
something. Over the heads of a layer, and over the runs of a series, values are means.
"""


@panel("spectra")
def spectra(data: ReportData, *, most_steps: int = 80) -> Panel:
    """Singular values over training, a chart per layer and matrix. `most_steps`: checkpoints drawn; more are thinned evenly."""
    rows = spectrum_rows(data.rows)
    options = _options(data, rows, most_steps) if len(rows) else ()
    steps = rows["step"].nunique()
    blocks: list[Block] = [Choice("Matrix", options)] if options else [_missing()]
    if options and steps > most_steps:
        blocks.append(thinning_remark(most_steps, steps))
    named = [describe_metric(name) for name in PLACE_METRICS if name in set(rows["metric"])]
    sentence = "How the directions of each matrix share its size: a few that grow out of the crowd, or all alike."
    return Panel("Spectra", sentence, "\n\n".join([DEFINITION, *named]), tuple(blocks))


def _missing() -> Missing:
    return Missing(
        "No spectra have been measured: `pico analyze RUN spectrum` takes the singular values at eleven places of each matrix."
    )


def _options(data: ReportData, rows: pandas.DataFrame, most_steps: int) -> tuple[Option, ...]:
    kept = charts.spaced_steps([int(step) for step in rows["step"].dropna().unique()], most_steps)
    made = []
    grouped: Any = rows.groupby(["series", "metric", *MATRIX], sort=False)
    for (series, metric, *matrix), part in sorted(grouped, key=lambda item: (item[0][0], item[0][1], matrix_order(item[0][2:]))):
        if part["place"].nunique() < 2 or part["value"].isna().all():
            continue
        prefix = "" if data.single is not None else f"{series}: "
        several = rows["metric"].nunique() > 1
        group = prefix + matrix_group(matrix) + (f", {metric_name(metric).lower()}" if several else "")
        stem = "-".join(str(piece) for piece in (series, "spectrum", metric, *matrix) if piece)
        made.append(Option(group, str(matrix[3]), _layers(part, kept, stem)))
    return tuple(made)


def _layers(part: pandas.DataFrame, kept: list[int], stem: str) -> tuple[Figure, ...]:
    figures = []
    grouped: Any = part.groupby("layer", sort=True, dropna=False)
    for layer, rows in grouped:
        name = "Outside the layers" if pandas.isna(layer) else f"Layer {int(layer)}"
        shown = rows[rows["step"].isin(kept)]
        if shown["value"].notna().any():
            chart = charts.spectrum_over_time(shown, title=name)
            figures.append(Figure(f"{stem}-{name}", name, chart, rows[[*NUMBERS, "place"]], height=230))
    return tuple(figures)
