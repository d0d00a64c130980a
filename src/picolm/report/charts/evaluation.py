"""Charts of scores: one evaluation's measure over training, with intervals and what chance gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from picolm.report.charts.axes import (
    PLAIN_NUMBERS,
    SHARES,
    band_axis,
    layered,
    progress_axis,
    progress_of,
    progress_tooltip,
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
    layers = reference_layers(float(baselines[0]), "chance") if len(baselines) == 1 else []
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
