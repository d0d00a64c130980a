"""Do dips or jumps of one series keep step with events in another? Circular shifts within a run."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from picolm.study.statistics.paired import Floats


class Alignment(NamedTuple):
    """How far the series near events lies above the rest, and the share of circular shifts that do as well."""

    effect: float
    p: float
    points: int
    """Points near an event."""


def event_alignment(values: ArrayLike, near: ArrayLike) -> Alignment:
    """Mean of `values` at the points marked in `near` (those within the lag window of an event) minus the mean elsewhere.

    p: share of all circular shifts of the marks (the unshifted one included) whose effect is at least this large; a shift keeps
    the spacing of the marks and the autocorrelation of the series. Orient first: turn dips by a minus sign, take trends out.
    """
    series, marks = np.asarray(values, dtype=np.float64), np.asarray(near, dtype=np.float64)
    inside = int(marks.sum())
    if inside in (0, series.size):
        return Alignment(0.0, 1.0, inside)
    effects = _effects_of_shifts(series, marks, inside)
    p = float(np.count_nonzero(effects >= effects[0] - 1e-12 * np.abs(series).max())) / series.size
    return Alignment(float(effects[0]), p, inside)


def _effects_of_shifts(series: Floats, near: Floats, inside: int) -> Floats:
    sums = np.array([series @ np.roll(near, shift) for shift in range(series.size)])
    return np.asarray(sums / inside - (series.sum() - sums) / (series.size - inside))


def local_extremes(values: ArrayLike, *, deviations: float, span: int = 20) -> list[int]:
    """Points that stand out upwards: above the median of the `span` points before by `deviations` times their scaled MAD."""
    series = np.asarray(values, dtype=np.float64)
    found = []
    for point in range(min(span, 3), series.size):
        before = series[max(0, point - span) : point]
        middle = float(np.median(before))
        spread = 1.4826 * float(np.median(np.abs(before - middle)))
        if spread > 0 and series[point] - middle > deviations * spread:
            found.append(point)
    return found


def without_trend(values: ArrayLike, span: int = 21) -> Floats:
    """Values minus their running median over `span` points around each."""
    series, half = np.asarray(values, dtype=np.float64), span // 2
    middle = [np.median(series[max(0, at - half) : at + half + 1]) for at in range(series.size)]
    return np.asarray(series - np.array(middle))
