"""Charts made of letters: losses and chosen metrics of a run for people on a login node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from picolm.base.errors import PicoError, suggestion
from picolm.report.charts.axes import progress_of, wants_log
from picolm.report.charts.thinning import binned
from picolm.report.definitions import metric_name
from picolm.report.panels.loss import has_values, validation_losses
from picolm.report.tables import RunTables, entropy_floor

if TYPE_CHECKING:
    import pandas

MOST_LINES = 6
"""Lines in one chart; colours and letters run out beyond."""


def text_charts(
    run: RunTables, metrics: Sequence[str] = (), *, width: int = 80, height: int = 15, color: bool = False
) -> list[str]:
    """One block of text per chart: losses, then each chosen metric of the weights, a line per part, mean over layers."""
    blocks = [_losses(run, width, height, color)] if has_values(run.log, "loss") else []
    return blocks + [_metric(run, metric, width, height, color) for metric in metrics]


def _losses(run: RunTables, width: int, height: int, color: bool) -> str:
    validation = validation_losses(run.scores)
    progress = progress_of(run.log, validation if len(validation) else None)
    training = binned(run.log, "loss", progress, points=4 * width)
    curves = {"training": (training[progress.column], training["loss"])}
    if len(validation):
        curves["validation"] = (validation[progress.column], validation["value"])
    floor = entropy_floor(run)
    if floor is not None:
        ends = training[progress.column].iloc[[0, -1]]
        curves[f"floor {floor:.3f}"] = (ends, ends * 0 + floor)
    return _draw(f"loss in nats per token, against {progress.title}", curves, width, height, color)


def _metric(run: RunTables, metric: str, width: int, height: int, color: bool) -> str:
    known = sorted(set(run.rows["metric"]))
    if metric not in known:
        raise PicoError(f"--metric {metric}: {run.name} has no rows of it", suggestion(metric, known))
    rows = run.rows[run.rows["metric"] == metric].dropna(subset=["value"])
    if rows.empty:
        raise PicoError(f"--metric {metric}: no value of it is defined in {run.name}", "`pico report` tells why")
    progress = progress_of(rows)
    data_type = "weights" if "weights" in set(rows["data_type"]) else str(rows["data_type"].iloc[0])
    chosen = rows[rows["data_type"] == data_type]
    curves = {}
    grouped: Any = chosen.groupby("part", sort=True)
    for part, group in list(grouped)[:MOST_LINES]:
        means = group.groupby(progress.column)["value"].mean()
        curves[str(part)] = (means.index.to_series(), means)
    return _draw(
        f"{metric_name(metric)} of {data_type}, mean over layers, against {progress.title}", curves, width, height, color
    )


def _draw(
    title: str, curves: dict[str, tuple[pandas.Series[Any], pandas.Series[Any]]], width: int, height: int, color: bool
) -> str:
    from uniplot import plot_to_string

    across = [numpy.asarray(values, dtype=float) for values, _ in curves.values()]
    upright = [numpy.asarray(values, dtype=float) for _, values in curves.values()]
    logarithmic = wants_log(numpy.concatenate([values[values > 0] for values in across]))
    if logarithmic:
        upright = [values[places > 0] for values, places in zip(upright, across, strict=True)]
        across = [places[places > 0] for places in across]
    drawn = plot_to_string(
        upright,
        xs=across,
        lines=True,
        width=max(20, width - 14),
        height=height,
        x_as_log=logarithmic,
        y_as_log=wants_log(numpy.concatenate(upright)),
        legend_labels=list(curves),
        color=color,
        character_set="block" if color or len(curves) == 1 else "ascii",
    )
    return f"{title}\n{drawn}"
