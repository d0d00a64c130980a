"""The axes all charts share: tokens across (steps where tokens are unknown), logarithmic when the data ask for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

if TYPE_CHECKING:
    import altair
    import pandas

LOG_RATIO = 50.0
"""Positive values that span more than this ratio are drawn on a logarithmic axis."""


class Progress(NamedTuple):
    """What runs along the horizontal axis: a column, its title, and whether its scale is logarithmic from `unit` on."""

    column: str
    title: str
    unit: float | None
    """Smallest positive value: the scale is linear below it and logarithmic above; None: linear throughout."""
    limit: float
    has_step: bool = True
    """Whether steps are known beside tokens."""


def progress_of(*frames: pandas.DataFrame | None, logarithmic: bool | None = None) -> Progress:
    """The horizontal axis for these frames: `tokens` if all of them know it, else `step`.

    Logarithmic if checkpoints or rows are spaced that way, or if asked for.
    """
    present = [frame for frame in frames if frame is not None and not frame.empty]
    known = all("tokens" in frame.columns and frame["tokens"].notna().any() for frame in present)
    column, title = ("tokens", "training tokens") if known and present else ("step", "updates")
    values = numpy.concatenate([frame[column].dropna().to_numpy(dtype=float) for frame in present] or [numpy.zeros(0)])
    positive = values[values > 0]
    limit = float(positive.max()) if positive.size else 1.0
    unit = float(positive.min()) if positive.size else 1.0
    use_log = limit / unit >= LOG_RATIO if logarithmic is None else logarithmic
    has_step = any("step" in frame.columns and frame["step"].notna().any() for frame in present)
    return Progress(column, title, unit if use_log else None, limit, has_step)


def progress_position(progress: Progress, values: Any) -> Any:
    """Where values lie along the axis, in arbitrary units: the transform of its scale."""
    array = numpy.asarray(values, dtype=float)
    return array if progress.unit is None else numpy.log1p(array / progress.unit)


def progress_axis(progress: Progress, **more: Any) -> altair.X:
    """The horizontal encoding."""
    import altair

    field = f"{progress.column}:Q"
    if progress.unit is None:
        return altair.X(
            field,
            title=progress.title,
            scale=altair.Scale(nice=False, zero=False),
            axis=altair.Axis(format="~s", tickCount=6),
            **more,
        )
    scale = altair.Scale(type="symlog", constant=progress.unit, nice=False, zero=False)
    ticks = decade_ticks(progress.unit, progress.limit)
    axis = altair.Axis(values=ticks, labelExpr="format(datum.value, '~s')", labelOverlap="greedy")
    return altair.X(field, title=progress.title, scale=scale, axis=axis, **more)


def decade_ticks(low: float, high: float) -> list[float]:
    """0 and the powers of ten between `low` and `high`; with 2 and 5 times them if there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [0.0, *(tick for tick in ticks if low <= tick <= high)]


def wants_log(values: Iterable[float]) -> bool:
    """Whether values are all positive and span so much that a logarithmic axis tells more."""
    finite = [float(value) for value in values if value is not None and math.isfinite(float(value))]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) >= LOG_RATIO


PLAIN_NUMBERS = "abs(datum.value) >= 10000 ? format(datum.value, '~s') : format(datum.value, '~g')"
SHARES = "format(datum.value, '.0%')"


def value_axis(
    field: str, title: str | None, *, logarithmic: bool = False, labels: str = PLAIN_NUMBERS, span: Sequence[float] = ()
) -> altair.Y:
    """The vertical encoding: not forced to zero; its title stands above it.

    `labels`: Vega expression for the text of a tick. `span`: least and greatest value, for the ticks of a logarithmic axis.
    """
    import altair

    axis: dict[str, Any] = {"tickCount": 5, "labelExpr": labels, **value_title()}
    ticks = decade_ticks(min(span), max(span))[1:] if logarithmic and span else []
    if len(ticks) > 1:
        axis["values"] = ticks
    return altair.Y(f"{field}:Q", title=title, scale=_value_scale(logarithmic), axis=altair.Axis(**axis))


def color_legend() -> altair.Legend:
    """The legend of a map: a thin bar beside it."""
    import altair

    return altair.Legend(orient="right", gradientLength=130, gradientThickness=9, tickCount=4, labelExpr=PLAIN_NUMBERS)


def band_axis(field: str, title: str | None, *, logarithmic: bool = False) -> altair.Y:
    """The lower edge of a band on the axis that `value_axis` made for another layer."""
    import altair

    return altair.Y(f"{field}:Q", title=title, scale=_value_scale(logarithmic))


def _value_scale(logarithmic: bool) -> altair.Scale:
    import altair

    return altair.Scale(type="log", nice=False) if logarithmic else altair.Scale(zero=False)


def value_title() -> dict[str, Any]:
    """Places the title of a vertical axis above it, where it is read first."""
    return {"titleY": -9, "titleX": 0, "titleBaseline": "bottom"}


def layered(*charts: Any) -> altair.LayerChart:
    """Charts on top of each other, first at the bottom."""
    import altair

    return altair.LayerChart(layer=list(charts))


def progress_tooltip(progress: Progress) -> list[altair.Tooltip]:
    """Tokens, if they are known, and step."""
    import altair

    known = (progress.column, "step") if progress.column != "step" and progress.has_step else (progress.column,)
    return [altair.Tooltip(f"{name}:Q", title=name, format=",d") for name in known]


def reference_frame(value: float, name: str) -> pandas.DataFrame:
    """The data of `reference_layers`."""
    import pandas

    return pandas.DataFrame({"value": [value], "text": [name]})


def reference_layers(frame: Any) -> list[altair.Chart]:
    """A dotted line at a value, with its name at the right end. `frame`: from `reference_frame`; undefined in a template."""
    import altair

    base = altair.Chart(frame).encode(altair.Y("value:Q"))
    label = base.mark_text(style="reference-label", align="right", baseline="top", dy=4)
    return [base.mark_rule(style="reference"), label.encode(x=altair.value("width"), text="text:N")]


def spread_labels(values: Sequence[float], low: float, high: float, *, gap_share: float) -> list[float]:
    """`values` moved apart as little as needed so that neighbours differ by `gap_share` of the range.

    Direct labels at line ends stay readable where lines meet. Order is kept.
    """
    if not values:
        return []
    gap = gap_share * (high - low)
    order = numpy.argsort(values, kind="stable")
    places = [float(values[index]) for index in order]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    shift = (sum(places) - sum(values)) / len(values)
    spread = [0.0] * len(values)
    for place, index in zip(places, order, strict=True):
        spread[int(index)] = place - shift
    return spread
