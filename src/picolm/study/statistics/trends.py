"""Order and dose: does the measure move with size, rate or rank, within each seed?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from picolm.study.statistics.paired import Floats


def slopes(values_SV: ArrayLike, doses: Sequence[float]) -> Floats:
    """Least-squares slope over the variants (columns) of each seed (row)."""
    values, dose = np.asarray(values_SV, dtype=np.float64), np.asarray(doses, dtype=np.float64)
    centred = dose - dose.mean()
    return np.asarray(values @ centred / (centred @ centred))


class PageTrend(NamedTuple):
    """Page's L and its p against an increase along the columns."""

    statistic: float
    p: float


def page_trend(values_SV: ArrayLike) -> PageTrend:
    """Page's test of an increase along the columns, ranks within each row (seed); exact for small tables. Source: Page (1963)."""
    result = stats.page_trend_test(np.asarray(values_SV, dtype=np.float64))
    return PageTrend(float(result.statistic), float(result.pvalue))
