"""Shapes of one curve: rise then fall, and the point where its level changes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from picolm.study.statistics.paired import Floats

COST_OF_A_PIECE = 4.0
"""Numbers a further piece counts as in BIC: level, slope, and its place, which is searched for and so counts twice."""


class Peak(NamedTuple):
    """An interior peak: how far it stands above both ends, how much of that noise alone would give, and where it is."""

    amplitude: float
    noise: float
    position: int

    @property
    def beyond_noise(self) -> float:
        return self.amplitude - self.noise


def rise_then_fall(values: ArrayLike, *, smooth: int = 3, draws: int = 200, seed: int = 0) -> Peak:
    """min(peak - start, peak - end) of the running median over `smooth` points, peak over interior points.

    `noise`: mean of the same number for curves that only rise or only fall: the better monotone fit plus the series' own noise in
    random order, which is how far each point lies from the middle of its neighbours, times sqrt(2/3). Negative amplitude: an end
    is higher than everything between.
    """
    series = np.asarray(values, dtype=np.float64)
    if series.size < smooth + 2:
        return Peak(0.0, 0.0, 0)
    curve = _running_median(series[None], smooth)
    roughness = np.sqrt(2 / 3) * (series[1:-1] - (series[:-2] + series[2:]) / 2)
    shuffled = np.random.default_rng(seed).choice(roughness, (draws, series.size)) + _monotone_fit(series)
    noise = np.maximum(0.0, _amplitudes(_running_median(shuffled, smooth))).mean()
    return Peak(float(_amplitudes(curve)[0]), float(noise), 1 + int(np.argmax(curve[0, 1:-1])) + smooth // 2)


def _amplitudes(curves_NT: Floats) -> Floats:
    return np.asarray(curves_NT[:, 1:-1].max(axis=1) - np.maximum(curves_NT[:, 0], curves_NT[:, -1]))


def _running_median(curves_NT: Floats, points: int) -> Floats:
    """Over whole windows only, so that the ends are as smooth as the rest."""
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(curves_NT, points, axis=1), axis=-1))


def _monotone_fit(series: Floats) -> Floats:
    fits = [optimize.isotonic_regression(series, increasing=increasing).x for increasing in (True, False)]
    return np.asarray(min(fits, key=lambda fit: float(((series - fit) ** 2).sum())), dtype=np.float64)


def change_point(values: ArrayLike) -> int | None:
    """Index k that best splits the series into two levels: values[:k] and values[k:], least squares. None below two points."""
    series = np.asarray(values, dtype=np.float64)
    if series.size < 2:
        return None
    sizes = np.arange(1, series.size)
    before = np.cumsum(series)[:-1] / sizes
    after = (series.sum() - np.cumsum(series)[:-1]) / (series.size - sizes)
    between = sizes * (series.size - sizes) * (before - after) ** 2
    return 1 + int(np.argmax(between))


def phases(values: ArrayLike, *, most: int = 5, shortest: int = 4) -> int:
    """Number of straight pieces that describe the curve best: least squares by dynamic programming, chosen by BIC.

    Points are taken as evenly spaced and their errors as
    independent; autocorrelated ones make the number too large, so compare variants. No piece is shorter than `shortest`.
    """
    series = np.asarray(values, dtype=np.float64)
    count = series.size
    if count < 2 * shortest:
        return 1
    cost = _line_costs(series, shortest)
    best = cost[0].copy()
    floor = 1e-12 * float(((series - series.mean()) ** 2).sum()) + 1e-300
    criteria = [count * np.log(max(best[count], floor) / count) + COST_OF_A_PIECE * np.log(count)]
    for pieces in range(2, most + 1):
        best = np.array([min((best[cut] + cost[cut, end] for cut in range(end)), default=np.inf) for end in range(count + 1)])
        criteria.append(count * np.log(max(best[count], floor) / count) + COST_OF_A_PIECE * pieces * np.log(count))
    return 1 + int(np.argmin(criteria))


def _line_costs(series: Floats, shortest: int) -> Floats:
    """cost[a, b]: squared error of the best line through points a to b - 1; infinite for too short a piece."""
    count = series.size
    at = np.arange(count, dtype=np.float64)
    sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in (series, series**2, at, at**2, at * series)]
    cost = np.full((count + 1, count + 1), np.inf)
    for start in range(count):
        ends = np.arange(start + shortest, count + 1)
        if not ends.size:
            continue
        y, yy, x, xx, xy = (part[ends] - part[start] for part in sums)
        size = ends - start
        spread = xx - x**2 / size
        cost[start, ends] = np.maximum(0.0, yy - y**2 / size - (xy - x * y / size) ** 2 / spread)
    return cost
