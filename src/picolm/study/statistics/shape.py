"""Shapes of one curve: rise then fall, and the point where its level changes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from picolm.study.statistics.paired import Floats


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

    `noise`: mean of the same number for curves that only rise or only fall: the better monotone fit plus its residuals in random
    order. Negative amplitude: an end is higher than everything between.
    """
    series = np.asarray(values, dtype=np.float64)
    amplitude, index = _amplitude(_running_median(series, smooth))
    fit = _monotone_fit(series)
    generator = np.random.default_rng(seed)
    shuffled = (fit + generator.permutation(series - fit) for _ in range(draws))
    noise = float(np.mean([max(0.0, _amplitude(_running_median(curve, smooth))[0]) for curve in shuffled])) if draws else 0.0
    return Peak(amplitude, noise, index)


def _amplitude(curve: Floats) -> tuple[float, int]:
    if curve.size < 3:
        return 0.0, 0
    index = 1 + int(np.argmax(curve[1:-1]))
    return float(curve[index] - max(curve[0], curve[-1])), index


def _running_median(series: Floats, points: int) -> Floats:
    half = points // 2
    return np.array([np.median(series[max(0, at - half) : at + half + 1]) for at in range(series.size)])


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
