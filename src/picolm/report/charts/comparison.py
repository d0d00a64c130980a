"""Charts of several runs: every run a faint line, the mean of each series a strong one, its uncertainty a band."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy
import pandas

from picolm.report.charts.axes import (
    PLAIN_NUMBERS,
    SHARES,
    Progress,
    band_axis,
    decade_ticks,
    layered,
    progress_axis,
    progress_of,
    progress_tooltip,
    reference_frame,
    reference_layers,
    value_axis,
    wants_log,
)
from picolm.report.charts.dynamics import layer_names
from picolm.report.charts.template import filled
from picolm.report.charts.thinning import binned

if TYPE_CHECKING:
    import altair

INTERVAL_RUNS = 3
"""From so many runs on a band is the 95 % interval of their mean; with two it is their range."""


class Reference(NamedTuple):
    """A value to read a chart against, such as what chance gives."""

    value: float
    name: str


def over_runs(frame: pandas.DataFrame, column: str, progress: Progress, *, by: Sequence[str] = ()) -> pandas.DataFrame:
    """Mean of `column` over the runs of each series at each place of the axis, with `low`, `high` and `runs`.

    Three or more runs: the 95 % interval of their mean (Student's t). Two: their range. One: no band. `frame` has one row
    per run and place; `place` says which rows of different runs belong together.
    """
    keys = ["series", *by, "place"]
    grouped = frame.groupby(keys, sort=True, dropna=False)
    summary = grouped[column].agg(["mean", "std", "min", "max", "count"]).reset_index()
    at = grouped[["step", "tokens"]].mean().reset_index()
    count = summary["count"].to_numpy(dtype=float)
    half = _half_widths(summary["std"].to_numpy(dtype=float), count)
    interval = count >= INTERVAL_RUNS
    low = numpy.where(interval, summary["mean"] - half, summary["min"])
    high = numpy.where(interval, summary["mean"] + half, summary["max"])
    named = summary[[*keys, "mean", "count"]].rename(columns={"mean": column, "count": "runs"}).assign(low=low, high=high)
    named.loc[named["runs"] < 2, ["low", "high"]] = float("nan")
    return named.assign(step=at["step"], tokens=at["tokens"]).sort_values(["series", progress.column], ignore_index=True)


def _half_widths(deviation: Any, count: Any) -> Any:
    from scipy.special import stdtrit

    freedom = numpy.maximum(count - 1, 1)
    return stdtrit(freedom, 0.975) * deviation / numpy.sqrt(numpy.maximum(count, 1))


def runs_over_time(
    frame: pandas.DataFrame,
    column: str,
    *,
    title: str,
    logarithmic: bool | None = None,
    even: bool = False,
    reference: Reference | None = None,
    shares: bool = False,
    across: str | None = None,
    points: int = 200,
) -> altair.LayerChart:
    """One quantity of several runs against tokens.

    `frame`: `series`, `run`, `step`, `tokens` and `column`. Runs of the same series are seeds of one thing. `logarithmic`:
    the vertical scale; None: where the values ask for it. `even`: a linear horizontal axis. `reference`: a dotted line.
    `shares`: values are written in percent. `across`: title of the horizontal axis, if it is neither tokens nor updates.
    """
    kept = frame.dropna(subset=[column])
    progress = progress_of(kept, logarithmic=False if even else None)
    progress = progress if across is None else progress._replace(title=across)
    # Seeds belong together by their updates: what the method drew may give each of them other tokens at the same update.
    has_steps = across is None and bool(kept["step"].notna().all())
    shared = progress_of(kept.drop(columns="tokens"), logarithmic=False if even else None) if has_steps else progress
    runs = binned(kept, column, shared, by=("series", "run"), points=points).rename(columns={column: "value"})
    means = over_runs(runs, "value", progress)
    shape = _shape(runs, means, progress, logarithmic)._replace(has_reference=reference is not None, shares=shares)
    line = {} if reference is None else dict.fromkeys((1, 2), reference_frame(*reference))
    return filled(_template(shape), means, title=title, layer_data={0: runs, **line})


def layers_of_runs(rows: pandas.DataFrame, *, title: str) -> altair.LayerChart:
    """One metric of several runs against tokens: the mean over layers, or the layer named by the parameter `focus_layer`."""
    values = rows.assign(value=pandas.to_numeric(rows["value"], errors="coerce").astype("float64")).dropna(subset=["value"])
    keys = ["series", "run", "step", "tokens"]
    each = values.groupby([*keys, "layer"], dropna=False)["value"].mean().reset_index()
    whole = each.groupby(keys, dropna=False)["value"].mean().reset_index().assign(layer="")
    each = each.assign(layer=layer_names(each["layer"]))
    runs = pandas.concat([whole, each], ignore_index=True)
    progress = progress_of(runs)
    runs = runs.assign(place=runs[progress.column])
    means = over_runs(runs, "value", progress, by=["layer"])
    shape = _shape(runs, means, progress, None)._replace(focus=True)
    return filled(_template(shape), means, title=title, layer_data={0: runs})


class Shape(NamedTuple):
    """All in which two comparisons can differ but their data."""

    progress: Progress
    order: tuple[str, ...]
    ticks: tuple[float, ...] | None
    """Ticks of a logarithmic vertical axis; None: a linear one."""
    several: bool
    """Whether any series has more than one run."""
    dots: bool
    focus: bool = False
    """Whether the parameter `focus_layer` chooses the rows."""
    has_reference: bool = False
    shares: bool = False
    """Whether values are written in percent."""


def _shape(runs: pandas.DataFrame, means: pandas.DataFrame, progress: Progress, logarithmic: bool | None) -> Shape:
    values = runs["value"]
    use_log = wants_log(values) if logarithmic is None else logarithmic and bool((values > 0).all())
    ticks = tuple(decade_ticks(float(values.min()), float(values.max()))) if use_log else None
    order = tuple(dict.fromkeys(means["series"]))
    several = bool(len(means)) and bool(means["runs"].max() > 1)
    return Shape(progress, order, ticks, several, means["place"].nunique() <= 40)


@functools.lru_cache(maxsize=128)
def _template(shape: Shape) -> altair.LayerChart:
    import altair

    use_log = shape.ticks is not None
    horizontal = progress_axis(shape.progress)
    vertical = value_axis(
        "value",
        None,
        logarithmic=use_log,
        span=shape.ticks[1:] if shape.ticks else (),
        labels=SHARES if shape.shares else PLAIN_NUMBERS,
    )
    color = altair.Color("series:N", scale=altair.Scale(domain=list(shape.order)), sort=list(shape.order), title=None)
    at = progress_tooltip(shape.progress)
    mean = [altair.Tooltip("series:N"), *at, altair.Tooltip("value:Q", title="mean", format=".4~g")]
    mean += [altair.Tooltip(f"{name}:Q", format=".4~g") for name in ("low", "high")] + [altair.Tooltip("runs:Q")]
    single = [altair.Tooltip("run:N"), *at, altair.Tooltip("value:Q", format=".4~g")]
    base = altair.Chart(altair.Undefined)
    if shape.focus:
        base = base.transform_filter("datum.layer == focus_layer")
    faint = base.mark_line(style="faint", opacity=0.45 if shape.several else 0.0)
    layers = [faint.encode(horizontal, vertical, color, altair.Detail("run:N"), tooltip=single)]
    if shape.has_reference:
        layers += reference_layers(altair.Undefined)
    if shape.several:
        band = base.mark_area(style="band")
        layers.append(band.encode(horizontal, band_axis("low", None, logarithmic=use_log), altair.Y2("high:Q"), color))
    layers.append(base.mark_line().encode(horizontal, vertical, color, tooltip=mean))
    if shape.dots:
        layers.append(base.mark_circle(style="dot").encode(horizontal, vertical, color, tooltip=mean))
    chart = layered(*layers)
    return chart.add_params(altair.param(name="focus_layer", value="")) if shape.focus else chart
