"""Charts of a study: what each seed says, its pairs, and the difference of two curves. Right and up is as predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas

from picolm.report.charts.axes import (
    band_axis,
    decade_ticks,
    layered,
    progress_axis,
    progress_of,
    progress_tooltip,
    value_axis,
)

if TYPE_CHECKING:
    import altair

FACTORS = "format(exp(datum.value), '.3~g') + ' x'"
"""Vega expression for a tick of an axis of logarithms of ratios."""

DIFFERENCES = "format(datum.value, '+.3~g')"

ROW_PIXELS = 24


class Span(NamedTuple):
    """A stretch of an axis; an end that is None is open."""

    low: float | None
    high: float | None


def seed_effects(
    effects: pandas.DataFrame,
    spans: pandas.DataFrame | None = None,
    *,
    title: str,
    axis: str,
    holds: Sequence[Span] = (),
    thresholds: Sequence[float] = (),
    threshold_name: str = "",
    factors: bool = False,
) -> altair.LayerChart:
    """The effect in each seed, one row each, and below them intervals of the mean and what else lies on the same axis.

    `effects`: `seed`, `effect` and, if anything is special about a pair, `note`: its dot is hollow. `spans`: `name`, `low`,
    `high` (null: open), `mean` (null: none) and `words`, one row each. `holds`: where on the axis the prediction is true, shaded.
    `thresholds`: where it becomes so, marked where they are not zero. `factors`: effects are logarithms of ratios.
    """
    import altair

    seeds = effects.assign(name="seed " + effects["seed"].astype(str))
    seeds = seeds.assign(note=seeds.get("note", ""))
    rows = pandas.DataFrame(columns=["name", "low", "high", "mean", "words"]) if spans is None else spans
    extent = _extent(seeds, rows, [*thresholds, 0.0, *(end for span in holds for end in span if end is not None)])
    rows = rows.assign(low=rows["low"].astype(float).fillna(extent[0]), high=rows["high"].astype(float).fillna(extent[1]))
    order = [*seeds["name"], *rows["name"]]
    across = altair.Scale(domain=list(extent), nice=False, zero=False)
    labels: dict[str, Any] = {"labelExpr": DIFFERENCES, "tickCount": 6}
    if factors:
        labels = {"labelExpr": FACTORS, "values": factor_ticks(*extent)}
    horizontal = altair.X("effect:Q", title=axis, scale=across, axis=altair.Axis(grid=True, **labels))
    upright = altair.Y("name:N", sort=order, title=None, axis=altair.Axis(ticks=False, domain=False, grid=False, labelLimit=170))
    shown = "exp" if factors else ""
    marked = [place for place in thresholds if place]
    layers: list[Any] = [*_regions(holds, extent), *_marks([0.0], "" if marked else "no difference", "reference")]
    layers += _marks(marked, threshold_name, "floor")
    layers += [*_span_layers(rows, upright, horizontal, shown), *_dots(seeds, upright, horizontal, shown)]
    chart = layered(*layers)
    chart.title = title
    return chart


def _extent(seeds: pandas.DataFrame, rows: pandas.DataFrame, others: Sequence[float]) -> tuple[float, float]:
    numbers = [*seeds["effect"], *rows["low"].dropna(), *rows["high"].dropna(), *rows["mean"].dropna(), *others]
    finite = [float(value) for value in numbers if math.isfinite(float(value))]
    low, high = min(finite), max(finite)
    pad = 0.06 * (high - low) or 1.0
    return low - pad, high + pad


def _regions(holds: Sequence[Span], extent: tuple[float, float]) -> list[altair.Chart]:
    import altair

    ends = [(extent[0] if span.low is None else span.low, extent[1] if span.high is None else span.high) for span in holds]
    frame = pandas.DataFrame(ends, columns=["from", "to"])
    if frame.empty:
        return []
    told = altair.Tooltip("words:N", title="shaded")
    base = altair.Chart(frame.assign(words="here the prediction is true")).mark_rect(style="holds")
    return [base.encode(x="from:Q", x2="to:Q", tooltip=told)]


def factor_ticks(low: float, high: float) -> list[float]:
    """The logarithms of round factors between two logarithms: 1, 2, 5, 10 and so on, or steps of such a size."""
    least, most = _factor(low), _factor(high)
    if most / least >= 4:
        return [math.log(tick) for tick in decade_ticks(least, most)[1:]]
    rough = (most - least) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough)
    return [math.log(step * index) for index in range(math.ceil(least / step), math.floor(most / step) + 1)]


def _marks(places: Sequence[float], name: str, style: str) -> list[altair.Chart]:
    import altair

    if not places:
        return []
    base = altair.Chart(pandas.DataFrame({"value": places, "text": name})).encode(altair.X("value:Q"))
    label = base.mark_text(style=f"{style}-label", align="center", baseline="bottom")
    text = label.encode(y=altair.value(-4), text="text:N")
    return [base.mark_rule(style=style).encode(tooltip=altair.Tooltip("text:N", title="line")), text]


def _span_layers(rows: pandas.DataFrame, upright: altair.Y, horizontal: altair.X, shown: str) -> list[altair.Chart]:
    import altair

    if rows.empty:
        return []
    told = [altair.Tooltip("words:N", title=" "), *_numbers(("low", "high"), shown)]
    base = altair.Chart(_with_factors(rows, ("low", "high", "mean"), shown))
    bar = base.mark_rule(style="interval").encode(_at(horizontal, "low"), altair.X2("high:Q"), upright, tooltip=told)
    known = _with_factors(rows.dropna(subset=["mean"]), ("low", "high", "mean"), shown)
    if known.empty:
        return [bar]
    point = altair.Chart(known).mark_point(style="mean", shape="diamond", filled=True)
    return [bar, point.encode(_at(horizontal, "mean"), upright, tooltip=[*told, *_numbers(("mean",), shown)])]


def _dots(seeds: pandas.DataFrame, upright: altair.Y, horizontal: altair.X, shown: str) -> list[altair.Chart]:
    import altair

    told = [altair.Tooltip("seed:N"), *_numbers(("effect",), shown), altair.Tooltip("note:N")]
    columns = [name for name in ("name", "seed", "effect", "note", "of", "versus") if name in seeds]
    frame = _with_factors(seeds[columns], ("effect",), shown)
    return [mark.encode(_at(horizontal, "effect"), upright, tooltip=told) for mark in _full_and_hollow(frame)]


def _full_and_hollow(frame: pandas.DataFrame) -> list[altair.Chart]:
    """Dots for the rows without a note, hollow ones for those with; neither where there is none."""
    import altair

    noted = frame["note"] != ""
    parts = [(frame[~noted], True), (frame[noted], False)]
    return [altair.Chart(part).mark_point(style="seed-dot", filled=filled) for part, filled in parts if len(part)]


def _at(axis: altair.X, field: str) -> altair.X:
    twin = axis.copy()
    twin.shorthand = f"{field}:Q"
    return twin


def _with_factors(frame: pandas.DataFrame, columns: Sequence[str], shown: str) -> pandas.DataFrame:
    """With factors shown, each logarithm also as the factor it stands for."""
    if not shown:
        return frame
    return frame.assign(**{f"{name}_factor": frame[name].astype(float).map(_factor) for name in columns})


def _factor(value: float) -> float:
    return math.exp(min(value, 700.0)) if math.isfinite(value) else float("nan")


def _numbers(names: Sequence[str], shown: str) -> list[altair.Tooltip]:
    import altair

    suffix = "_factor" if shown else ""
    return [altair.Tooltip(f"{name}{suffix}:Q", title=f"{name}{' factor' if shown else ''}", format=".4~g") for name in names]


def paired_seeds(
    values: pandas.DataFrame,
    *,
    title: str,
    order: Sequence[str],
    colors: Sequence[str] = (),
    axis: str | None = None,
    logarithmic: bool = False,
) -> altair.LayerChart:
    """One measure of every run, variants side by side, runs of the same seed joined; the mean of each variant as a bar.

    `values`: `variant`, `seed`, `value` and, if anything is special about a run, `note`: its dot is hollow. `order`: variants,
    left to right. `colors`: all variants of the study, so that one keeps its colour from chart to chart; none: those shown.
    """
    import altair

    frame = values.assign(note=values.get("note", ""))[["variant", "seed", "value", "note"]]
    frame = frame.assign(value=pandas.to_numeric(frame["value"], errors="coerce").astype("float64")).dropna(subset=["value"])
    horizontal = altair.X(
        "variant:N", sort=list(order), title=None, scale=altair.Scale(padding=0.35), axis=altair.Axis(labelAngle=0, ticks=False)
    )
    vertical = value_axis("value", axis, logarithmic=logarithmic, span=list(frame["value"]))
    color = altair.Color("variant:N", scale=altair.Scale(domain=list(colors or order)), legend=None)
    told = [altair.Tooltip("variant:N"), altair.Tooltip("seed:N"), altair.Tooltip("value:Q", format=".5~g")]
    base = altair.Chart(frame)
    means = frame.groupby("variant", sort=False)["value"].mean().reset_index()
    mean = altair.Chart(means).mark_tick(style="variant-mean")
    chart = layered(
        base.mark_line(style="pair").encode(horizontal, vertical, altair.Detail("seed:N"), tooltip=told[1:2]),
        mean.encode(horizontal, vertical, color, tooltip=[told[0], altair.Tooltip("value:Q", title="mean", format=".5~g")]),
        *(
            mark.encode(horizontal, vertical, color, tooltip=[*told, altair.Tooltip("note:N")])
            for mark in _full_and_hollow(frame)
        ),
    )
    chart.title = title
    return chart


def curve_difference(
    band: pandas.DataFrame,
    *,
    title: str,
    axis: str | None = None,
    across: str | None = None,
    threshold: float = 0.0,
    apart_from: float | None = None,
) -> altair.LayerChart:
    """The mean difference of two curves with a simultaneous band, and from where on they are apart.

    `band`: `step`, `tokens`, `mean`, `low`, `high`. `across`: title of the horizontal axis, if it is neither tokens nor updates.
    `apart_from`: a place on the horizontal axis.
    """
    import altair

    progress = progress_of(band, logarithmic=False)
    progress = progress if across is None else progress._replace(title=across)
    horizontal, vertical = progress_axis(progress), value_axis("mean", axis)
    told = [*progress_tooltip(progress), *(altair.Tooltip(f"{name}:Q", format=".4~g") for name in ("mean", "low", "high"))]
    base = altair.Chart(band)
    zero = altair.Chart(pandas.DataFrame({"mean": [0.0]})).mark_rule(style="reference").encode(altair.Y("mean:Q"))
    layers: list[Any] = [
        base.mark_area(style="difference-band").encode(horizontal, band_axis("low", axis), altair.Y2("high:Q")),
        zero,
    ]
    if threshold:
        layers.append(altair.Chart(pandas.DataFrame({"mean": [threshold]})).mark_rule(style="floor").encode(altair.Y("mean:Q")))
    if apart_from is not None:
        mark = altair.Chart(pandas.DataFrame({progress.column: [apart_from], "text": ["apart from here on"]}))
        mark = mark.encode(altair.X(f"{progress.column}:Q"))
        layers += [
            mark.mark_rule(style="floor"),
            mark.mark_text(style="floor-label", align="left", dx=5, baseline="top").encode(y=altair.value(0), text="text:N"),
        ]
    layers.append(base.mark_line(style="difference").encode(horizontal, vertical, tooltip=told))
    chart = layered(*layers)
    chart.title = title
    return chart
