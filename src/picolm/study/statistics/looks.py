"""Declared looks: the same study may be judged at several numbers of seeds, each look with its own threshold for p."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from picolm.study.statistics.paired import ENUMERATED_UP_TO, Floats, all_signs

_DRAWS_OF_SIZES = 100


def error_of_looks(looks: Sequence[int], thresholds: Sequence[float]) -> float:
    """Probability that a study without any effect crosses its threshold at one of the looks.

    Given the sizes of the differences every sign is equally likely, so all 2^n outcomes are counted, averaged over drawn normal
    sizes. One look gives its threshold rounded down to a multiple of 2^-n. Beyond 16 seeds: the Brownian approximation.
    """
    if max(looks) > ENUMERATED_UP_TO:
        return _brownian_error(looks, thresholds)
    generator = np.random.default_rng(20_250_101)
    sizes = np.abs(generator.standard_normal((_DRAWS_OF_SIZES, max(looks))))
    return float(np.mean([_error_given_sizes(row, looks, thresholds) for row in sizes]))


def _error_given_sizes(sizes: Floats, looks: Sequence[int], thresholds: Sequence[float]) -> float:
    crossed = np.zeros(2 ** len(sizes), dtype=bool)
    for seeds, threshold in zip(looks, thresholds, strict=True):
        sums = all_signs(seeds) @ sizes[:seeds]
        p = (len(sums) - np.searchsorted(np.sort(sums), sums - 1e-12, side="left")) / len(sums)
        crossed |= np.tile(p <= threshold + 1e-12, len(crossed) // len(sums))  # sign vectors repeat their first columns
    return float(crossed.mean())


def _brownian_error(looks: Sequence[int], thresholds: Sequence[float]) -> float:
    """1 - P(all z_k below their bounds), corr(z_j, z_k) = sqrt(n_j / n_k)."""
    correlation = [[math.sqrt(min(a, b) / max(a, b)) for b in looks] for a in looks]
    bounds = stats.norm.isf(np.asarray(thresholds, dtype=np.float64))
    return 1.0 - float(stats.multivariate_normal.cdf(bounds, mean=np.zeros(len(looks)), cov=correlation, allow_singular=True))
