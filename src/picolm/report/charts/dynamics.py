"""Charts of analysis rows: one metric on one part of every layer over training, as lines or as a map of layers and steps."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas

from picolm.report.charts.axes import (
    Progress,
    band_axis,
    color_legend,
    decade_ticks,
    layered,
    progress_axis,
    progress_of,
    progress_tooltip,
    value_axis,
    value_title,
    wants_log,
)
from picolm.report.charts.template import filled
from picolm.report.charts.thinning import spaced_steps

if TYPE_CHECKING:
    import altair

MOST_DOTS = 24
"""Checkpoints of a line that get a dot to point at; more would slow the page and hide the line."""

HEADS = (("low", "least"), ("high", "greatest"))


def over_heads(rows: pandas.DataFrame, *, by: Sequence[str] = ()) -> pandas.DataFrame:
    """One row per step and layer: the value, or over the heads of a layer their mean with `low`, `high` and `heads`.

    `null` is the mean of what noise gives, where that is known. `by`: more columns that keep rows apart, such as the metric.
    What this has made is left as it is.
    """
    if "heads" in rows.columns:
        return rows
    values = _floats(rows)
    grouped = values.groupby([*by, "step", "tokens", "layer"], sort=True, dropna=False)
    summary = grouped["value"].agg(["mean", "min", "max", "count"])
    summary["null"] = grouped["null"].mean() if "null" in values.columns else float("nan")
    names = {"mean": "value", "min": "low", "max": "high", "count": "heads"}
    summary = summary.rename(columns=names).reset_index().dropna(subset=["value"])
    return summary.assign(layer=layer_names(summary["layer"]))


def _floats(rows: pandas.DataFrame) -> pandas.DataFrame:
    numeric = [name for name in ("value", "null", "tokens") if name in rows.columns]
    return rows.assign(**{name: pandas.to_numeric(rows[name], errors="coerce").astype("float64") for name in numeric})


def layer_names(layers: pandas.Series[Any]) -> pandas.Series[Any]:
    """Layers as text, `none` for what lies outside the layers."""
    return layers.astype("Int64").astype(str).replace("<NA>", "none")


def metric_trajectories(
    rows: pandas.DataFrame, *, title: str, layers: Sequence[int] | None = None, heads: pandas.DataFrame | None = None
) -> altair.LayerChart:
    """One metric against tokens, one line per layer in the order of depth; a band over the heads of a layer.

    `rows`: one metric, component, data type and part (or what `over_heads` made of them, with the rows themselves as
    `heads`). `layers`: all layers of the model, so that a layer keeps its colour from chart to chart. The parameter
    `focus_layer` (empty: none) sets one layer apart and draws its heads singly. What noise of the same shape gives (`null`)
    is dotted.
    """
    frame = over_heads(rows)
    dotted = spaced_steps([int(step) for step in frame["step"].unique()], MOST_DOTS)
    frame = frame[["step", "tokens", "layer", "value", "low", "high", "heads", "null"]].assign(dot=frame["step"].isin(dotted))
    known = sorted({int(layer) for layer in frame["layer"].unique() if layer != "none"}) if layers is None else layers
    many_heads = bool(len(frame)) and bool(frame["heads"].max() > 1)
    ticks = tuple(decade_ticks(frame["value"].min(), frame["value"].max())) if wants_log(frame["value"]) else None
    has_null = bool(frame["null"].notna().any())
    order = tuple(str(layer) for layer in known) or ("none",)
    template = _trajectories_template(progress_of(frame), order, ticks, many_heads, has_null)
    single = {0: _single_heads(rows if heads is None else heads)} if many_heads else None
    return filled(template, frame, title=title, layer_data=single)


def _single_heads(rows: pandas.DataFrame) -> pandas.DataFrame:
    columns = ["step", "tokens", "layer", "head", "value"]
    if not set(columns) <= set(rows.columns):
        return pandas.DataFrame(columns=columns)
    frame = _floats(rows)[columns].dropna(subset=["value"])
    return frame.assign(layer=layer_names(frame["layer"]))


@functools.lru_cache(maxsize=128)
def _trajectories_template(
    progress: Progress, order: tuple[str, ...], ticks: tuple[float, ...] | None, many_heads: bool, has_null: bool
) -> altair.LayerChart:
    """The chart without its data: charts of one report differ in little else, and to build one takes Altair long."""
    import altair

    horizontal = progress_axis(progress)
    vertical = value_axis("value", None, logarithmic=ticks is not None, span=ticks[1:] if ticks else ())
    color = altair.Color(
        "layer:O", scale=altair.Scale(domain=list(order)), sort=list(order), title="layer", legend=altair.Legend(columns=8)
    )
    tooltip = [altair.Tooltip("layer:O"), *progress_tooltip(progress), altair.Tooltip("value:Q", format=".4~g")]
    if many_heads:
        tooltip += [altair.Tooltip(f"{end}:Q", title=f"{name} head", format=".4~g") for end, name in HEADS]
    base = altair.Chart(altair.Undefined)
    parts = _head_layers(horizontal, vertical, color, tooltip[:2], logarithmic=ticks is not None) if many_heads else []
    if has_null:
        null = altair.Y("mean(null):Q", title=None)
        parts.append(base.mark_line(style="reference").encode(horizontal, null, tooltip=_null_tooltip()))
    faded = _where_shown(1.0, otherwise=0.12)
    parts += [
        base.mark_line().encode(horizontal, vertical, color, opacity=faded),
        base.mark_circle(style="dot")
        .transform_filter("datum.dot")
        .encode(horizontal, vertical, color, opacity=faded, tooltip=tooltip),
    ]
    return layered(*parts).add_params(altair.param(name="focus_layer", value=""))


def _head_layers(
    horizontal: altair.X, vertical: altair.Y, color: altair.Color, tooltip: list[altair.Tooltip], *, logarithmic: bool
) -> list[altair.Chart]:
    import altair

    base = altair.Chart(altair.Undefined)
    told = [*tooltip, altair.Tooltip("head:O"), altair.Tooltip("value:Q", format=".4~g")]
    single = base.mark_line(style="faint").transform_filter("datum.layer == focus_layer")
    band = base.mark_area(style="band").encode(
        horizontal, band_axis("low", None, logarithmic=logarithmic), altair.Y2("high:Q"), color
    )
    return [
        single.encode(horizontal, vertical, color, altair.Detail("head:O"), tooltip=told),
        band.encode(opacity=_where_shown(0.14, otherwise=0.0)),
    ]


def _null_tooltip() -> list[altair.Tooltip]:
    import altair

    return [altair.Tooltip("mean(null):Q", title="noise gives", format=".4~g")]


def _where_shown(opacity: float, *, otherwise: float) -> altair.OpacityValue:
    import altair

    return altair.OpacityValue(otherwise, condition={"test": "focus_layer == '' || datum.layer == focus_layer", "value": opacity})


def metric_heatmap(rows: pandas.DataFrame, *, title: str) -> altair.Chart:
    """One metric as a map: checkpoints across, layers upwards, the value (mean over heads) as colour."""
    frame = over_heads(rows)[["step", "tokens", "layer", "value"]]
    progress = progress_of(frame)
    order = sorted(frame["layer"].unique(), key=lambda layer: -int(layer) if layer != "none" else 1)
    return filled(_heatmap_template(progress, tuple(order), wants_log(frame["value"])), frame, title=title)


@functools.lru_cache(maxsize=128)
def _heatmap_template(progress: Progress, order: tuple[str, ...], logarithmic: bool) -> altair.Chart:
    import altair

    label = altair.Axis(labelExpr="format(datum.value, '.3~s')", labelAngle=0, labelOverlap="greedy", ticks=False, domain=False)
    color = altair.Color(
        "value:Q",
        title=None,
        scale=altair.Scale(type="log") if logarithmic else altair.Scale(zero=False),
        legend=color_legend(),
    )
    tooltip = [altair.Tooltip("layer:O"), *progress_tooltip(progress), altair.Tooltip("value:Q", format=".4~g")]
    chart: altair.Chart = altair.Chart(altair.Undefined).mark_rect()
    encoded: altair.Chart = chart.encode(
        altair.X(f"{progress.column}:O", title=progress.title, axis=label, scale=altair.Scale(paddingInner=0.04)),
        altair.Y("layer:O", sort=list(order), title="layer", axis=altair.Axis(ticks=False, grid=False, **value_title())),
        color,
        tooltip=tooltip,
    )
    return encoded
