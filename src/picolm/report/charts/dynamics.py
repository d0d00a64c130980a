"""Charts of analysis rows: one metric on one part of every layer over training; heads as a band, or each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas

from picolm.report.charts.axes import band_axis, layered, progress_axis, progress_of, progress_tooltip, value_axis, wants_log

if TYPE_CHECKING:
    import altair


HEADS = (("low", "least"), ("high", "greatest"))


def over_heads(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row per step and layer: the value, or over the heads of a layer their mean with `low`, `high` and `heads`."""
    values = rows.assign(value=pandas.to_numeric(rows["value"], errors="coerce").astype("float64"))
    keys = ["step", "tokens", "layer"]
    grouped = values.groupby(keys, sort=True, dropna=False)["value"]
    summary = grouped.agg(["mean", "min", "max", "count"]).reset_index()
    return summary.rename(columns={"mean": "value", "min": "low", "max": "high", "count": "heads"})


def metric_trajectories(
    rows: pandas.DataFrame, *, title: str, layers: Sequence[int] | None = None, null: float | None = None
) -> altair.LayerChart:
    """One metric against tokens, one line per layer in the order of depth; a band over the heads of a layer.

    `rows`: one metric, component, data type and part. `layers`: all layers of the model, so that a layer keeps its colour
    from chart to chart. `null`: what pure noise of the same shape gives, drawn dotted.
    """
    import altair

    frame = over_heads(rows).dropna(subset=["value"])
    frame = frame.assign(layer=frame["layer"].astype("Int64").astype(str).replace("<NA>", "none"))
    known = sorted({int(layer) for layer in rows["layer"].dropna()}) if layers is None else layers
    order = [str(layer) for layer in known] or ["none"]
    horizontal = progress_axis(progress_of(frame))
    logarithmic = wants_log(frame["value"])
    vertical = value_axis("value", title, logarithmic=logarithmic, span=list(frame["value"]) if logarithmic else ())
    color = altair.Color("layer:O", scale=altair.Scale(domain=order), sort=order, title="layer")
    focus = altair.param(name="focus_layer", value="")
    tooltip = [altair.Tooltip("layer:O"), *progress_tooltip(frame), altair.Tooltip("value:Q", title=title, format=".4~g")]
    many_heads = frame["heads"].max() > 1
    if many_heads:
        tooltip += [altair.Tooltip(f"{end}:Q", title=f"{name} head", format=".4~g") for end, name in HEADS]
    base = altair.Chart(frame)
    parts = _null_layers(null) if null is not None else []
    if many_heads:
        band = base.mark_area(style="band").encode(
            horizontal, band_axis("low", title, logarithmic=logarithmic), altair.Y2("high:Q"), color
        )
        parts.append(band.encode(opacity=_where_shown(0.14, otherwise=0.0)))
    faded = _where_shown(1.0, otherwise=0.12)
    parts += [
        base.mark_line().encode(horizontal, vertical, color, opacity=faded),
        base.mark_circle(size=24).encode(horizontal, vertical, color, opacity=faded, tooltip=tooltip),
    ]
    return layered(*parts).add_params(focus)


def _where_shown(opacity: float, *, otherwise: float) -> altair.OpacityValue:
    import altair

    return altair.OpacityValue(otherwise, condition={"test": "focus_layer == '' || datum.layer == focus_layer", "value": opacity})


def _null_layers(null: float) -> list[altair.Chart]:
    import altair

    base = altair.Chart(pandas.DataFrame({"value": [null], "text": ["noise"]})).encode(altair.Y("value:Q"))
    label = base.mark_text(style="reference-label", align="right", baseline="bottom", dy=-3)
    return [base.mark_rule(style="reference"), label.encode(x=altair.value("width"), text="text:N")]
