"""Several runs side by side: where each series ended, over its seeds."""

from __future__ import annotations

from typing import Any

import pandas

from picolm.report import charts
from picolm.report.charts.axes import Progress
from picolm.report.panels.contract import Block, Missing, Panel, Remark, Table, panel
from picolm.report.panels.evaluation import score_title
from picolm.report.tables import ReportData

DEFINITION = """
A run ends at its last logged update and its last evaluated checkpoint. Each cell is the mean over the runs of a series, with
the 95 % interval of that mean (Student's t over runs) from three runs on, or the range of two. A difference between two series
is not tested here: that is the work of a study, whose hypothesis is written down before the runs are made.
"""


@panel("comparison")
def comparison(data: ReportData) -> Panel:
    """The last losses and scores of every series, mean and interval over its runs, and of every run."""
    sentence = "Where each series of runs ended, and how far its seeds lie apart."
    ends = final_values(data)
    if len(data.runs) < 2:
        blocks: tuple[Block, ...] = (Missing("There is one run; a comparison needs two: `pico report RUN1 RUN2`."),)
    elif ends.empty:
        blocks = (Missing("No run has a loss or a score yet."),)
    else:
        blocks = (_series_table(ends), *_run_tables(ends), *_warnings(data))
    return Panel("Comparison", sentence, DEFINITION, blocks)


def final_values(data: ReportData) -> pandas.DataFrame:
    """One row per run and quantity: `series`, `run`, `quantity`, `step`, `tokens`, `value`, the last of each."""
    pieces = []
    if "loss" in data.log.columns:
        log = data.log.rename(columns={"loss": "value"}).assign(quantity="Training loss")
        pieces.append(log)
    scores = data.scores[data.scores["group"] == "all"]
    if len(scores):
        titles = [score_title(name, measure) for name, measure in zip(scores["evaluation"], scores["measure"], strict=True)]
        pieces.append(scores.assign(quantity=titles))
    columns = ["series", "run", "quantity", "step", "tokens", "value"]
    if not pieces:
        return pandas.DataFrame(columns=columns)
    stacked = pandas.concat([piece[columns] for piece in pieces], ignore_index=True)
    stacked = stacked.assign(value=pandas.to_numeric(stacked["value"], errors="coerce").astype("float64")).dropna(
        subset=["value"]
    )
    order = {quantity: place for place, quantity in enumerate(stacked["quantity"].drop_duplicates())}
    last = stacked.sort_values("step", kind="stable").groupby(["series", "run", "quantity"], sort=False).last().reset_index()
    return last.sort_values("quantity", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def _series_table(ends: pandas.DataFrame) -> Table:
    quantities = list(dict.fromkeys(ends["quantity"]))
    frame = ends.assign(place=0)
    told: dict[tuple[str, str], str] = {}
    for quantity in quantities:
        part = charts.over_runs(frame[frame["quantity"] == quantity], "value", Progress("step", "", None, 1.0))
        told |= {(str(row["series"]), quantity): _with_interval(row) for row in part.to_dict("records")}
    runs = ends.groupby("series", sort=False)["run"].nunique()
    rows = tuple((str(name), str(runs[name]), *(told.get((str(name), q), "none") for q in quantities)) for name in runs.index)
    return Table(("series", "runs", *quantities), rows, caption="Last values of each series", open=True)


def _with_interval(row: dict[Any, Any]) -> str:
    if row["low"] != row["low"]:
        return f"{row['value']:.4g}"
    return f"{row['value']:.4g} ({row['low']:.4g} to {row['high']:.4g})"


def _run_tables(ends: pandas.DataFrame) -> list[Block]:
    quantities = list(dict.fromkeys(ends["quantity"]))
    cells = {(row["run"], row["quantity"]): f"{row['value']:.4g}" for row in ends.to_dict("records")}
    series = ends.drop_duplicates("run").set_index("run")["series"]
    rows = tuple(
        (str(run), str(series[run]), *(cells.get((run, quantity), "none") for quantity in quantities)) for run in series.index
    )
    return [Table(("run", "series", *quantities), rows, caption="Last values of each run")]


def _warnings(data: ReportData) -> list[Block]:
    lengths = data.log.groupby("run")["step"].max() if len(data.log) else pandas.Series(dtype=float)
    if lengths.nunique() > 1:
        low, high = int(lengths.min()), int(lengths.max())
        return [
            Remark(f"The runs are not equally long ({low:,} to {high:,} updates): last values do not compare like with like.")
        ]
    return []
