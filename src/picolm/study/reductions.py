"""From the series of one run to one number: the reductions a measure may name, one function each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from picolm.base.errors import PicoError
from picolm.study.series import Floats, RunFiles, Series, read_series
from picolm.study.spec_measures import EventsConfig, MeasureConfig


@dataclass(frozen=True)
class CurveOfRun:
    """All values of a series against the measure's axis."""

    x: Floats
    y: Floats
    steps: Floats


@dataclass(frozen=True)
class Reduced:
    """What a measure gives for one run."""

    value: float | None
    """None if it has none; `note` then says why. Of a curve its last value."""
    censored: bool = False
    """A level was not reached: `value` is where the run ended."""
    note: str = ""
    curve: CurveOfRun | None = None
    """The series it comes from, for predictions about curves and for drawing."""
    end: float | None = None
    """tokens_to: where the run ended, on the measure's axis."""


Reducer = Callable[[Series, Floats, MeasureConfig, RunFiles], Reduced]
_REDUCERS: dict[str, Reducer] = {}


def reduce_measure(measure: MeasureConfig, files: RunFiles) -> Reduced:
    """The measure of one run; PicoError if the run has no such series."""
    whole = read_series(files, measure.series, measure.where)
    series = whole.from_step(measure.from_step)
    if not series.values.size:
        return Reduced(
            None, note=f"no value of {measure.series}{f' from step {measure.from_step} on' if measure.from_step else ''}"
        )
    axis = axis_of(series, measure, files)
    reduced = _REDUCERS[measure.reduce](series, axis, measure, files)
    if reduced.curve is None and series.values.size > 1:
        reduced = replace(reduced, curve=_drawn(series, axis, None))
    if whole.undefined and not reduced.note:
        return replace(reduced, note=f"{whole.undefined} values are undefined and left out")
    return reduced


def axis_of(series: Series, measure: MeasureConfig, files: RunFiles) -> Floats:
    """What the series runs over: tokens, their logarithm, steps, or a growing column of the log, interpolated."""
    if measure.x == "step":
        return series.steps
    if measure.x == "tokens":
        return series.tokens
    if measure.x == "log_tokens":
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(series.tokens))
    other = read_series(files, measure.x, {})
    if np.any(np.diff(other.values) < 0):
        raise PicoError(f"{files.run.path}: {measure.x} shrinks, so nothing can be drawn over it", "name a running total")
    return np.asarray(np.interp(series.steps, np.append(0.0, other.steps), np.append(0.0, other.values)))


def running_median(values: Floats, points: int | None) -> Floats:
    """Median of the `points` values up to and including each one: it looks back only, so a level is never reached early."""
    if points is None or points < 2:
        return values
    return np.array([np.median(values[max(0, at - points + 1) : at + 1]) for at in range(values.size)])


def _reducer(name: str) -> Callable[[Reducer], Reducer]:
    def add(function: Reducer) -> Reducer:
        _REDUCERS[name] = function
        return function

    return add


def _simple(name: str, function: Callable[[Floats], Any]) -> None:
    _REDUCERS[name] = lambda series, axis, measure, files: Reduced(float(function(series.values)))


_simple("last", lambda values: values[-1])
_simple("first", lambda values: values[0])
_simple("mean", np.mean)
_simple("median", np.median)
_simple("min", np.min)
_simple("max", np.max)


@_reducer("mean_last")
def _mean_last(series: Series, axis: Floats, measure: MeasureConfig, files: RunFiles) -> Reduced:
    k = measure.k or 1
    if series.values.size < k:
        return Reduced(None, note=f"{series.values.size} values, {k} are asked for")
    return Reduced(float(series.values[-k:].mean()))


@_reducer("at")
def _at(series: Series, axis: Floats, measure: MeasureConfig, files: RunFiles) -> Reduced:
    found = np.flatnonzero(series.steps == measure.step)
    if not found.size:
        near = series.steps[np.argsort(np.abs(series.steps - (measure.step or 0)))[:3]].astype(int)
        return Reduced(None, note=f"nothing was measured at step {measure.step}; nearest: {', '.join(map(str, sorted(near)))}")
    return Reduced(float(series.values[found[0]]))


def _finite_axis(series: Series, axis: Floats) -> tuple[Floats, Floats]:
    """Without the points that the axis cannot show, such as step 0 on log tokens."""
    shown = np.isfinite(axis)
    return axis[shown], series.values[shown]


@_reducer("auc")
def _auc(series: Series, axis: Floats, measure: MeasureConfig, files: RunFiles) -> Reduced:
    """Mean height of the curve over the axis (trapezoids), in the unit of the series."""
    x, y = _finite_axis(series, axis)
    if x.size < 2 or x[-1] == x[0]:
        return Reduced(None, note="fewer than two points")
    return Reduced(float(np.trapezoid(y, x) / (x[-1] - x[0])))


@_reducer("slope")
def _slope(series: Series, axis: Floats, measure: MeasureConfig, files: RunFiles) -> Reduced:
    """Least-squares slope over the axis."""
    x, y = _finite_axis(series, axis)
    if x.size < 2 or x[-1] == x[0]:
        return Reduced(None, note="fewer than two points")
    centred = x - x.mean()
    return Reduced(float(centred @ y / (centred @ centred)))


@_reducer("tokens_to")
def _tokens_to(series: Series, axis: Floats, measure: MeasureConfig, files: RunFiles) -> Reduced:
    """Where the (smoothed) series first is at or beyond the level, interpolated between the two points around it."""
    x, raw = _finite_axis(series, axis)
    y, level = running_median(raw, measure.smooth), float(measure.level or 0.0)
    reached = np.flatnonzero(y <= level if measure.better == "lower" else y >= level)
    end = float(x[-1])
    if not reached.size:
        return Reduced(end, censored=True, note=f"{level:g} was not reached", end=end)
    at = int(reached[0])
    if at == 0 or y[at] == y[at - 1]:
        return Reduced(float(x[at]), end=end)
    share = (level - y[at - 1]) / (y[at] - y[at - 1])
    return Reduced(float(x[at - 1] + share * (x[at] - x[at - 1])), end=end)


@_reducer("jump_at")
def _jump_at(series: Series, axis: Floats, measure: MeasureConfig, files: RunFiles) -> Reduced:
    """Mean over events of (mean of the `window` values after) - (mean of as many up to the event's own step)."""
    assert measure.events is not None
    jumps = []
    for step in event_steps(measure.events, files, float(series.steps[-1])):
        after = int(np.searchsorted(series.steps, step, side="right"))
        before_values, after_values = (
            series.values[max(0, after - measure.window) : after],
            series.values[after : after + measure.window],
        )
        if len(before_values) == measure.window == len(after_values):
            jumps.append(float(after_values.mean() - before_values.mean()))
    if not jumps:
        return Reduced(None, note=f"no event with {measure.window} values before and after")
    return Reduced(float(np.mean(jumps)))


def event_steps(events: EventsConfig, files: RunFiles, last_step: float) -> list[float]:
    """Steps (updates made) at which something happened."""
    if events.steps:
        return [float(step) for step in events.steps]
    if events.every is not None:
        return [float(step) for step in range(events.every, int(last_step) + 1, events.every)]
    series = read_series(files, events.series or "", {})
    return [float(step) for step in series.steps[series.values != 0]]


@_reducer("curve")
def _curve(series: Series, axis: Floats, measure: MeasureConfig, files: RunFiles) -> Reduced:
    curve = _drawn(series, axis, measure.smooth)
    return Reduced(float(curve.y[-1]) if curve.y.size else None, curve=curve)


def _drawn(series: Series, axis: Floats, smooth: int | None) -> CurveOfRun:
    shown = np.isfinite(axis)
    return CurveOfRun(axis[shown], running_median(series.values[shown], smooth), series.steps[shown])
