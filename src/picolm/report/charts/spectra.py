"""Charts of spectra: where the singular values of one matrix lie, from the largest to the smallest, over training."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pandas

from picolm.report.charts.axes import (
    Progress,
    band_axis,
    decade_ticks,
    layered,
    progress_axis,
    progress_of,
    progress_tooltip,
    value_axis,
    wants_log,
)
from picolm.report.charts.template import filled

if TYPE_CHECKING:
    import altair

NAMED_PLACES = {0.0: "largest", 0.5: "median", 1.0: "smallest"}
"""Places of the spectrum that get a line with a name; between the others lie bands."""


def spectrum_over_time(rows: pandas.DataFrame, *, title: str) -> altair.LayerChart:
    """The singular values of one matrix against tokens: largest, median and smallest as lines, nested bands between.

    `rows`: `step`, `tokens`, `value`, and `place`, from 0 (the largest) to 1 (the smallest). The bands hold the middle
    of the spectrum: those between the places 0.1 and 0.9, for instance, 80 % of it. What noise of the same shape gives
    (`null`, where it is known) is dotted.
    """
    frame = over_repeats(rows)
    progress = progress_of(frame)
    logarithmic = wants_log(frame["value"])
    ticks = tuple(decade_ticks(frame["value"].min(), frame["value"].max())) if logarithmic else None
    lines = frame[frame["place"].isin(NAMED_PLACES)].assign(name=lambda each: each["place"].map(NAMED_PLACES))
    has_null = bool(lines["null"].notna().any())
    layer_data = {1: lines, 2: lines, 3: _line_ends(lines)}
    return filled(_template(progress, ticks, has_null), _bands(frame), title=title, layer_data=layer_data)


def over_repeats(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row per step and place: the mean over heads and runs, where there are several."""
    values = rows.assign(value=pandas.to_numeric(rows["value"], errors="coerce").astype("float64"))
    values["null"] = pandas.to_numeric(rows["null"], errors="coerce").astype("float64") if "null" in rows else float("nan")
    means = values.groupby(["step", "tokens", "place"], dropna=False)[["value", "null"]].mean().reset_index()
    return means.dropna(subset=["value"]).sort_values(["step", "place"], ignore_index=True)


def _bands(frame: pandas.DataFrame) -> pandas.DataFrame:
    """One row per step and band: places at equal distance from both ends belong together."""
    folded = frame.assign(share=(1 - 2 * frame["place"].clip(upper=1 - frame["place"])).round(6))
    grouped = folded[folded["share"] > 0].groupby(["step", "tokens", "share"], dropna=False)["value"]
    bands = grouped.agg(["min", "max", "size"]).reset_index().rename(columns={"min": "low", "max": "high"})
    return (
        bands[bands["size"] == 2].drop(columns="size").sort_values(["share", "step"], ascending=[False, True], ignore_index=True)
    )


def _line_ends(lines: pandas.DataFrame) -> pandas.DataFrame:
    return lines.sort_values("step", kind="stable").groupby("name", sort=False).tail(1)


@functools.lru_cache(maxsize=64)
def _template(progress: Progress, ticks: tuple[float, ...] | None, has_null: bool) -> altair.LayerChart:
    import altair

    horizontal = progress_axis(progress)
    vertical = value_axis("value", None, logarithmic=ticks is not None, span=ticks[1:] if ticks else ())
    low = band_axis("low", None, logarithmic=ticks is not None)
    line = [altair.Tooltip("name:N", title="singular value"), *progress_tooltip(progress)]
    line.append(altair.Tooltip("value:Q", format=".4~g"))
    if has_null:
        line.append(altair.Tooltip("null:Q", title="noise gives", format=".4~g"))
    base = altair.Chart(altair.Undefined)
    own = altair.Chart(altair.Undefined).encode(horizontal, detail=altair.Detail("name:N"))
    band = [altair.Tooltip("share:Q", title="middle share", format=".0%"), *progress_tooltip(progress)]
    band += [altair.Tooltip(f"{end}:Q", format=".4~g") for end in ("low", "high")]
    layers: list[Any] = [
        base.mark_area(style="spectrum-band").encode(
            horizontal, low, altair.Y2("high:Q"), altair.Detail("share:Q"), tooltip=band
        ),
        own.mark_line(style="reference").encode(altair.Y("null:Q", title=None)),
        own.mark_line(style="spectrum").encode(vertical, tooltip=line),
        own.mark_text(style="end-label", align="left", dx=6).encode(vertical, text="name:N"),
    ]
    return layered(*layers)
