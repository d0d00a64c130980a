"""Charts of scores: one evaluation's measure over training, with intervals and what chance gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from picolm.report.charts.axes import (
    PLAIN_NUMBERS,
    SHARES,
    band_axis,
    color_legend,
    layered,
    progress_axis,
    progress_of,
    progress_tooltip,
    reference_frame,
    reference_layers,
    value_axis,
    wants_log,
)

if TYPE_CHECKING:
    import altair
    import pandas

Z_95 = 1.959964
"""Half width of a normal 95 % interval in standard errors."""


def with_interval(scores: pandas.DataFrame) -> pandas.DataFrame:
    """`scores` with `low` and `high`: the normal 95 % interval from `standard_error`, NaN where that is unknown."""
    import pandas

    value = pandas.to_numeric(scores["value"], errors="coerce")
    half = Z_95 * pandas.to_numeric(scores["standard_error"], errors="coerce")
    return scores.assign(value=value, low=value - half, high=value + half)


def scores_over_time(scores: pandas.DataFrame, *, measure: str, title: str = "") -> altair.LayerChart:
    """The value of one measure against tokens, one line per `group` (`all` emphasised), intervals, chance dotted."""
    import altair
    import pandas

    frame = with_interval(scores).dropna(subset=["value"])
    if measure == "accuracy":
        frame = frame.assign(low=frame["low"].clip(lower=0.0), high=frame["high"].clip(upper=1.0))
    frame = frame.assign(group=frame["group"].str.replace("_", " "))
    progress = progress_of(frame)
    horizontal = progress_axis(progress)
    logarithmic = wants_log(frame["value"])
    vertical = value_axis(
        "value",
        None,
        logarithmic=logarithmic,
        labels=SHARES if measure == "accuracy" else PLAIN_NUMBERS,
        span=list(frame["value"]),
    )
    groups = [group for group in frame["group"].drop_duplicates() if group != "all"]
    whole, parts = frame[frame["group"] == "all"], frame[frame["group"] != "all"]
    tooltip = [
        *(altair.Tooltip("group:N"), *progress_tooltip(progress), altair.Tooltip("value:Q", title=measure, format=".4~f")),
        *(altair.Tooltip("low:Q", title="95 % from", format=".4~f"), altair.Tooltip("high:Q", title="to", format=".4~f")),
    ]
    baselines = pandas.to_numeric(frame["baseline"], errors="coerce").dropna().unique()
    layers = reference_layers(reference_frame(float(baselines[0]), "chance")) if len(baselines) == 1 else []
    if groups:
        color = altair.Color("group:N", scale=altair.Scale(domain=groups), title=None)
        base = altair.Chart(parts)
        layers += [
            base.mark_line().encode(horizontal, vertical, color, tooltip=tooltip),
            base.mark_circle(style="dot").encode(horizontal, vertical, color, tooltip=tooltip),
        ]
    if not whole.empty:
        layers += _whole_layers(whole, horizontal, vertical, tooltip, labelled=bool(groups), logarithmic=logarithmic)
    chart = layered(*layers)
    chart.title = title or measure
    return chart


def _whole_layers(
    whole: pandas.DataFrame,
    horizontal: altair.X,
    vertical: altair.Y,
    tooltip: list[altair.Tooltip],
    *,
    labelled: bool,
    logarithmic: bool,
) -> list[altair.Chart]:
    import altair

    band_from = band_axis("low", None, logarithmic=logarithmic)

    base = altair.Chart(whole)
    layers = [
        base.mark_area(style="neutral-band").encode(horizontal, band_from, altair.Y2("high:Q")),
        base.mark_line(style="emphasis").encode(horizontal, vertical, tooltip=tooltip),
        base.mark_circle(style="emphasis-dot").encode(horizontal, vertical, tooltip=tooltip),
    ]
    if labelled:
        end = altair.Chart(whole.sort_values("step", kind="stable").tail(1))
        label = end.mark_text(style="end-label", align="left", dx=7)
        layers.append(label.encode(horizontal, vertical, text=altair.value("all")))
    return layers


def scores_map(scores: pandas.DataFrame, *, title: str, shares: bool = False) -> altair.Chart:
    """Many groups of one measure as a map: checkpoints across, groups downwards by where they end, the value as colour.

    `shares`: the scale reaches from 0 to 1 and is written in percent.
    """
    import altair
    import pandas

    frame = scores.assign(value=pandas.to_numeric(scores["value"], errors="coerce"), group=scores["group"].str.replace("_", " "))
    frame = frame.dropna(subset=["value"])[["step", "tokens", "group", "value"]]
    progress = progress_of(frame)
    order = frame.sort_values("step", kind="stable").groupby("group")["value"].last().sort_values(ascending=False)
    label = altair.Axis(labelExpr="format(datum.value, '.3~s')", labelAngle=0, labelOverlap="greedy", ticks=False, domain=False)
    legend = color_legend()
    legend.labelExpr = SHARES if shares else PLAIN_NUMBERS
    scale = altair.Scale(domain=[0, 1]) if shares else altair.Scale(zero=False)
    base: altair.Chart = altair.Chart(frame, title=title).mark_rect()
    chart: altair.Chart = base.encode(
        altair.X(f"{progress.column}:O", title=progress.title, axis=label),
        altair.Y("group:N", sort=list(order.index), title=None, axis=altair.Axis(ticks=False, grid=False, labelLimit=220)),
        altair.Color("value:Q", title=None, scale=scale, legend=legend),
        tooltip=[altair.Tooltip("group:N"), *progress_tooltip(progress), altair.Tooltip("value:Q", format=".4~f")],
    )
    return chart
