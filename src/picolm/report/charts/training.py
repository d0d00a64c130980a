"""Charts of the training log: losses with the floor, learning rate, gradient norm, speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from picolm.report.charts.axes import band_axis, layered, progress_axis, progress_of, progress_tooltip, spread_labels, value_axis
from picolm.report.charts.thinning import binned

if TYPE_CHECKING:
    import altair
    import pandas

NATS = "nats per token"


def losses(
    log: pandas.DataFrame, validation: pandas.DataFrame | None = None, *, floor: float | None = None, points: int = 240
) -> altair.LayerChart:
    """Training loss of `log` (`step`, `tokens`, `loss`) with the range inside each drawn point, validation loss on top.

    `validation` has `step`, `tokens`, `value`; `floor` is the entropy of the data, the least any model can reach.
    """
    import altair
    import pandas

    progress = progress_of(log, validation)
    training = binned(log, "loss", progress, points=points).assign(curve="training")
    horizontal = progress_axis(progress)
    vertical = value_axis("loss", NATS)
    color = altair.Color("curve:N", scale=altair.Scale(domain=["training", "validation"]), legend=None)
    tooltip = [
        altair.Tooltip("curve:N", title="loss"),
        *progress_tooltip(progress),
        altair.Tooltip("loss:Q", title=NATS, format=".4f"),
    ]
    base = altair.Chart(training)
    layers = [
        base.mark_area(style="band").encode(horizontal, band_axis("low", NATS), altair.Y2("high:Q"), color),
        base.mark_line().encode(horizontal, vertical, color, tooltip=tooltip),
    ]
    frames = [training]
    if validation is not None and not validation.empty:
        measured = validation.assign(loss=validation["value"], curve="validation").dropna(subset=["loss", progress.column])
        measured = measured[["curve", "step", "tokens", "loss"]]
        marks = altair.Chart(measured).encode(horizontal, vertical, color, tooltip=tooltip)
        layers += [marks.mark_line(), marks.mark_circle(style="dot")]
        frames.append(measured)
    if floor is not None:
        layers += _floor_layers(floor, vertical)
    layers.append(_end_labels(pandas.concat(frames, ignore_index=True), progress.column, floor, color))
    return layered(*layers)


def _floor_layers(floor: float, vertical: altair.Y) -> list[altair.Chart]:
    import altair
    import pandas

    base = altair.Chart(pandas.DataFrame({"loss": [floor], "text": [f"entropy floor {floor:.3f}"]}))
    label = base.mark_text(style="floor-label", align="left", baseline="top", dy=5, dx=2)
    return [
        base.mark_rule(style="floor").encode(vertical, tooltip=[altair.Tooltip("loss:Q", title="entropy floor", format=".4f")]),
        label.encode(vertical, x=altair.value(0), text="text:N"),
    ]


def _end_labels(curves: pandas.DataFrame, column: str, floor: float | None, color: altair.Color) -> altair.Chart:
    import altair

    ends = curves.sort_values(column, kind="stable").groupby("curve", sort=False).last().reset_index()
    low, high = float(curves["loss"].min()), float(curves["loss"].max())
    low = low if floor is None else min(low, floor)
    places = spread_labels([float(value) for value in ends["loss"]], low, high, gap_share=0.07)
    words = [f"{curve} {loss:.3f}" for curve, loss in zip(ends["curve"], ends["loss"], strict=True)]
    labels = ends.assign(label_at=places, label=words)
    text = altair.Chart(labels).mark_text(style="end-label", align="left", dx=7)
    chart: altair.Chart = text.encode(altair.X(f"{column}:Q"), altair.Y("label_at:Q"), color, text="label:N")
    return chart


def log_column(
    log: pandas.DataFrame, column: str, *, title: str, logarithmic: bool = False, points: int = 240
) -> altair.LayerChart:
    """One column of the log against tokens: the mean inside each drawn point, and its range as a band."""
    import altair

    progress = progress_of(log, logarithmic=False)
    frame = binned(log, column, progress, points=points).assign(quantity=title)
    base = altair.Chart(frame)
    horizontal = progress_axis(progress)
    vertical = value_axis(column, title, logarithmic=logarithmic, span=list(frame[column]))
    tooltip = [*progress_tooltip(progress), altair.Tooltip(f"{column}:Q", title=title, format=".4g")]
    color = altair.Color("quantity:N", legend=None)
    return layered(
        base.mark_area(style="band").encode(
            horizontal, band_axis("low", title, logarithmic=logarithmic), altair.Y2("high:Q"), color
        ),
        base.mark_line().encode(horizontal, vertical, color, tooltip=tooltip),
    )
