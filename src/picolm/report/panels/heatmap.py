"""Every metric as a map of layers and checkpoints: where in depth and when in training something happens."""

from __future__ import annotations

from typing import Any

import pandas

from picolm.report import charts
from picolm.report.panels.contract import Block, Choice, Missing, Option, Panel, panel
from picolm.report.panels.dynamics import matrix_options, thinning_remark
from picolm.report.spectra import other_rows
from picolm.report.tables import ReportData

DEFINITION = """
Each cell is one metric of one layer at one checkpoint, the mean over the heads of the layer where it has several, and over runs
where there are several. Layers grow upwards, from the first to the last; checkpoints stand side by side at equal distance,
however many tokens lie between them. Every map has its own colour scale; a scale that spans more than a factor of fifty is
logarithmic.
"""


@panel("heatmap")
def heatmap(data: ReportData, *, most_steps: int = 40) -> Panel:
    """One layer x checkpoint map per metric and part. `most_steps`: checkpoints drawn; more are thinned evenly."""
    rows = other_rows(data.rows)
    rows = rows[rows["layer"].notna()]
    blocks: list[Block] = []
    if rows.empty:
        blocks.append(Missing("No layer has been analysed: `pico analyze` applies metrics to the checkpoints of a run."))
    elif rows["step"].nunique() < 2:
        blocks.append(Missing("There is one analysed checkpoint; a map over training needs two."))
    else:
        blocks += _maps(data, rows, most_steps)
    sentence = "Where in the depth of the network, and when in training, each metric moves."
    return Panel("Layers and steps", sentence, DEFINITION, tuple(blocks))


def _maps(data: ReportData, rows: pandas.DataFrame, most_steps: int) -> list[Block]:
    options: list[Option] = []
    for series, part in rows.groupby("series", sort=False):
        prefix = "" if data.single is not None else f"{series}: "
        options += matrix_options(part, most_steps, _map, prefix=prefix, kind="map")
    blocks: list[Block] = [Choice("Matrix", tuple(options))]
    steps = rows["step"].nunique()
    return [*blocks, thinning_remark(most_steps, steps)] if steps > most_steps else blocks


def _map(rows: pandas.DataFrame, summary: pandas.DataFrame, title: str) -> Any:
    return charts.metric_heatmap(summary, title=title)
